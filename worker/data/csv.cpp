#include "data/csv.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "data/files.h"
#include "protocol/hooks.h"

namespace bulkhead {
namespace {

Error malformed(const std::string& file, std::int64_t line, const std::string& what) {
  return {ErrorCode::kMalformed, "data.path: " + file + ":" + std::to_string(line) + ": " + what};
}

// A cursor over CSV text that reads one record at a time.
class Reader {
 public:
  Reader(std::string_view text, const std::string& name) : text_(text), name_(name) {}

  bool at_end() const { return at_ >= text_.size(); }

  Result<CsvRecord> record() {
    CsvRecord record;
    record.line = line_;
    for (;;) {
      auto field = text_.substr(at_).starts_with('"') ? quoted() : plain();
      if (!field) return field.error();
      record.fields.push_back(std::move(*field));
      if (at_end() || text_[at_] != ',') break;
      ++at_;
    }
    end_of_line();
    return record;
  }

 private:
  Result<std::string> plain() {
    const std::size_t end = std::min(text_.find_first_of(",\r\n", at_), text_.size());
    std::string field(text_.substr(at_, end - at_));
    if (field.find('"') != std::string::npos)
      return malformed(name_, line_, "a quote inside an unquoted field");
    at_ = end;
    return field;
  }

  Result<std::string> quoted() {
    const std::int64_t opened = line_;
    std::string field;
    for (++at_; !at_end(); ++at_) {
      if (text_[at_] == '\n') ++line_;
      if (text_[at_] != '"') {
        field.push_back(text_[at_]);
      } else if (text_.substr(at_ + 1).starts_with('"')) {
        field.push_back(text_[++at_]);
      } else {
        ++at_;
        const bool ends = at_end() || text_[at_] == ',' || text_[at_] == '\n' || text_[at_] == '\r';
        if (!ends) return malformed(name_, line_, "text after a closing quote");
        return field;
      }
    }
    return malformed(name_, opened, "a quote that is never closed");
  }

  void end_of_line() {
    if (!at_end() && text_[at_] == '\r') ++at_;
    if (!at_end() && text_[at_] == '\n') ++at_;
    ++line_;
  }

  std::string_view text_;
  const std::string& name_;
  std::size_t at_ = 0;
  std::int64_t line_ = 1;
};

std::string_view trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

template <class Number>
std::optional<Number> parse_number(std::string_view text) {
  text = trimmed(text);
  if (text.size() > 1 && text[0] == '+' && text[1] != '-') text.remove_prefix(1);
  Number value{};
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

Status check_header(const CsvRecord& header, const std::string& file) {
  std::set<std::string_view> seen;
  for (const auto& column : header.fields) {
    if (column.empty()) return malformed(file, header.line, "the header has a column without a name");
    if (!seen.insert(column).second)
      return malformed(file, header.line, "the header has '" + column + "' twice");
  }
  if (header.fields.size() < 2) {
    return malformed(file, header.line, "the header has one column; a target and a feature are two");
  }
  return ok_status();
}

Result<std::size_t> find_target(const CsvRecord& header, const DataConfig& config) {
  if (config.target.empty()) {
    return Error{ErrorCode::kMismatch, "data.target: missing; it names the label column of " + config.path};
  }
  const auto found = std::find(header.fields.begin(), header.fields.end(), config.target);
  if (found != header.fields.end()) return static_cast<std::size_t>(found - header.fields.begin());
  const std::string nearest = nearest_name(config.target, header.fields);
  const std::string hint =
      nearest.empty() ? "its last one is '" + header.fields.back() + "'" : "did you mean '" + nearest + "'?";
  return Error{ErrorCode::kMismatch,
               "data.target: " + config.path + " has no column '" + config.target + "'; " + hint};
}

// Sorts labels by number when all are integers.
std::vector<std::string> sorted_classes(const std::set<std::string>& distinct) {
  std::vector<std::string> classes(distinct.begin(), distinct.end());
  const auto number = [](const std::string& label) { return parse_number<std::int64_t>(label); };
  if (std::all_of(classes.begin(), classes.end(), number)) {
    std::stable_sort(classes.begin(), classes.end(),
                     [&](const auto& a, const auto& b) { return *number(a) < *number(b); });
  }
  return classes;
}

Status read_labels(const std::vector<CsvRecord>& records, std::size_t target, const DataConfig& config,
                   TableData& table) {
  std::set<std::string> distinct;
  for (std::size_t row = 1; row < records.size(); ++row) {
    const std::string label(trimmed(records[row].fields[target]));
    if (label.empty()) {
      return malformed(config.path, records[row].line, "column '" + config.target + "' has no label");
    }
    distinct.insert(label);
  }
  if (distinct.size() < 2) {
    return Error{ErrorCode::kMismatch, "data.target: column '" + config.target + "' of " + config.path +
                                           " holds one class only, so there is nothing to learn"};
  }
  table.classes = sorted_classes(distinct);
  std::map<std::string_view, std::int64_t> index_of;
  for (const auto& name : table.classes) index_of.emplace(name, static_cast<std::int64_t>(index_of.size()));
  for (std::size_t row = 1; row < records.size(); ++row) {
    table.labels.push_back(index_of.at(trimmed(records[row].fields[target])));
  }
  return ok_status();
}

// All cells but the target's, row by row, before standardisation.
Result<std::vector<double>> read_features(const std::vector<CsvRecord>& records, std::size_t target,
                                          const std::string& file) {
  const auto& names = records.front().fields;
  std::vector<double> cells;
  cells.reserve((records.size() - 1) * (names.size() - 1));
  for (std::size_t row = 1; row < records.size(); ++row) {
    for (std::size_t column = 0; column < names.size(); ++column) {
      if (column == target) continue;
      const std::string& cell = records[row].fields[column];
      const auto value = parse_number<double>(cell);
      if (!value || !std::isfinite(*value)) {
        const std::string held =
            cell.empty() ? "is empty" : "holds '" + cell + "', which is not a finite number";
        return malformed(file, records[row].line, "column '" + names[column] + "' " + held);
      }
      cells.push_back(*value);
    }
  }
  return cells;
}

void standardise(const std::vector<double>& cells, TableData& table) {
  const std::size_t width = table.columns.size();
  const auto train_rows = static_cast<std::size_t>(table.sizes.train);
  table.features.resize(cells.size());
  for (std::size_t column = 0; column < width; ++column) {
    double sum = 0;
    for (std::size_t row = 0; row < train_rows; ++row) sum += cells[row * width + column];
    const double mean = sum / static_cast<double>(train_rows);
    double squares = 0;
    for (std::size_t row = 0; row < train_rows; ++row) {
      squares += (cells[row * width + column] - mean) * (cells[row * width + column] - mean);
    }
    const double deviation = std::sqrt(squares / static_cast<double>(train_rows));
    const double scale = deviation > 0 ? 1.0 / deviation : 1.0;
    for (std::size_t at = column; at < cells.size(); at += width) {
      table.features[at] = static_cast<float>((cells[at] - mean) * scale);
    }
  }
}

}  // namespace

Result<std::vector<CsvRecord>> parse_csv(std::string_view text, const std::string& name) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  Reader reader(text, name);
  std::vector<CsvRecord> records;
  while (!reader.at_end()) {
    auto record = reader.record();
    if (!record) return record.error();
    if (record->fields.size() == 1 && record->fields.front().empty()) continue;
    if (!records.empty() && record->fields.size() != records.front().fields.size()) {
      return malformed(name, record->line,
                       "the row has " + std::to_string(record->fields.size()) + " fields, the header " +
                           std::to_string(records.front().fields.size()));
    }
    records.push_back(std::move(*record));
  }
  return records;
}

Result<TableData> load_csv(const DataConfig& config) {
  if (auto fractions = check_fractions(config); !fractions) return fractions.error();
  const auto text = read_file(config.path, "data.path");
  if (!text) return text.error();
  const auto records = parse_csv(*text, config.path);
  if (!records) return records.error();
  if (records->size() < 2) {
    return Error{ErrorCode::kMismatch,
                 "data.path: " + config.path + " needs a header row and at least one row of data"};
  }
  if (auto header = check_header(records->front(), config.path); !header) return header.error();
  const auto target = find_target(records->front(), config);
  if (!target) return target.error();

  TableData table;
  table.rows = static_cast<std::int64_t>(records->size()) - 1;
  table.sizes = split_samples(table.rows, config.validation_fraction, config.test_fraction);
  if (table.sizes.train == 0) {
    return Error{ErrorCode::kMismatch,
                 "data.validation_fraction: with data.test_fraction it leaves no row of " + config.path +
                     " for training"};
  }
  table.columns = records->front().fields;
  table.columns.erase(table.columns.begin() + static_cast<std::ptrdiff_t>(*target));
  if (auto labels = read_labels(*records, *target, config, table); !labels) return labels.error();
  const auto cells = read_features(*records, *target, config.path);
  if (!cells) return cells.error();
  standardise(*cells, table);
  return table;
}

}  // namespace bulkhead
