#include "data/rows.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "data/files.h"

namespace bulkhead {
namespace {

// Of the brackets outside of strings; good for anything that is JSON.
std::size_t depth_of(std::string_view text) {
  std::size_t depth = 0, deepest = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      deepest = std::max(deepest, ++depth);
    } else if ((c == '}' || c == ']') && depth > 0) {
      --depth;
    }
  }
  return deepest;
}

}  // namespace

std::string Rows::place_of(std::size_t row) const {
  if (row < lines.size()) return "data.path: " + path + " line " + std::to_string(lines[row]);
  return "data.path: " + path + ", row " + std::to_string(row) + " of those that the plugins have left,";
}

std::string row_objection(const std::string& text) {
  if (const auto bad = first_invalid_utf8(text)) return "is not UTF-8 text at byte " + std::to_string(*bad);
  if (depth_of(text) > kDeepestRow) {
    return "is nested more than " + std::to_string(kDeepestRow) + " levels deep";
  }
  try {
    if (Value::parse(text).is_object()) return {};
    return "is JSON, but no object";
  } catch (const Value::parse_error& error) {
    return "is not JSON at byte " + std::to_string(error.byte);
  } catch (const Value::exception&) {  // a number that no double holds
    return "is not JSON that can be read";
  }
}

Result<Rows> read_rows(const DataConfig& config) {
  const auto file = read_file(config.path, "data.path");
  if (!file) return file.error();
  Rows rows;
  rows.path = config.path;
  std::int64_t line = 0;
  for (std::string_view rest = *file; !rest.empty();) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    std::string text(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
    ++line;
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    if (const std::string wrong = row_objection(text); !wrong.empty()) {
      return Error{ErrorCode::kMalformed,
                   "data.path: " + config.path + " line " + std::to_string(line) + " " + wrong};
    }
    rows.texts.push_back(std::move(text));
    rows.lines.push_back(line);
  }
  if (rows.texts.empty()) {
    return Error{ErrorCode::kMismatch, "data.path: " + config.path + " has no row"};
  }
  return rows;
}

}  // namespace bulkhead
