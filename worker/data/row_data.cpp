#include "data/row_data.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "data/rows.h"
#include "data/text.h"
#include "protocol/log.h"

namespace bulkhead {
namespace {

void append(Batch& batch, Batch more) {
  for (Tensor& tensor : more) batch.push_back(std::move(tensor));
}

Tensor matrix(const char* name, std::size_t rows, std::size_t columns, std::vector<std::int64_t> values) {
  Tensor tensor = pack_numbers(name, values);
  tensor.shape = {static_cast<std::int64_t>(rows), static_cast<std::int64_t>(columns)};
  return tensor;
}

std::string as_numbers(std::span<const std::int64_t> tokens) {
  std::string text;
  for (const std::int64_t token : tokens) text += (text.empty() ? "" : " ") + std::to_string(token);
  return text;
}

}  // namespace

Result<RowData> RowData::load(const DataConfig& config, std::int64_t context) {
  Result<Rows> rows = read_rows(config);
  if (!rows) return rows.error();
  Result<TokenRows> tokens = tokenise(*rows, config, context);
  if (!tokens) return tokens.error();
  if (tokens->dropped > 0) {
    spdlog::info("{} of {} rows have nothing that is learned and are dropped", tokens->dropped,
                 rows->texts.size());
  }
  return RowData(std::move(*tokens), config, context);
}

RowData::RowData(TokenRows rows, const DataConfig& config, std::int64_t context)
    : rows_(std::make_shared<const TokenRows>(std::move(rows))), config_(config), context_(context) {}

Batch RowData::raw_samples(Split split, std::span<const std::int64_t> indices) const {
  const SampleRange range = sizes().range(split);
  NumberLists ids;
  NumberLists labels;
  std::vector<std::int64_t> numbers;
  std::vector<std::int64_t> wide;
  for (const std::int64_t index : indices) {
    CHECK(index >= 0 && index < range.count,
          "sample " + std::to_string(index) + " of " + std::to_string(range.count));
    numbers.push_back(range.first + index);
    const TokenRows::Sample sample = rows_->sample(numbers.back());
    wide.assign(sample.input_ids.begin(), sample.input_ids.end());
    ids.add(wide);
    wide.assign(sample.labels.begin(), sample.labels.end());
    labels.add(wide);
  }
  Batch batch = ids.pack("input_ids");
  append(batch, labels.pack("labels"));
  batch.push_back(pack_numbers("sample", numbers));
  return batch;
}

Result<Batch> RowData::collate(const Batch& raw) const {
  const Result<NumberLists> ids = NumberLists::unpack(raw, "input_ids");
  if (!ids) return ids.error();
  const Result<NumberLists> labels = NumberLists::unpack(raw, "labels");
  if (!labels) return labels.error();
  if (ids->size() != labels->size()) {
    return Error{ErrorCode::kMismatch, "the samples have input_ids and labels of different numbers"};
  }
  std::size_t longest = 0;
  for (std::size_t i = 0; i < ids->size(); ++i) longest = std::max(longest, (*ids)[i].size());
  std::vector<std::int64_t> inputs(ids->size() * longest, kPadding);
  std::vector<std::int64_t> learned(ids->size() * longest, kNotLearned);
  for (std::size_t i = 0; i < ids->size(); ++i) {
    const auto row = static_cast<std::ptrdiff_t>(i * longest);
    if ((*labels)[i].size() != (*ids)[i].size()) {
      return Error{ErrorCode::kMismatch, "a sample has input_ids and labels of different lengths"};
    }
    std::copy((*ids)[i].begin(), (*ids)[i].end(), inputs.begin() + row);
    std::copy((*labels)[i].begin(), (*labels)[i].end(), learned.begin() + row);
  }
  return Batch{matrix("input_ids", ids->size(), longest, std::move(inputs)),
               matrix("labels", ids->size(), longest, std::move(learned))};
}

std::string RowData::decode(std::span<const std::int64_t> tokens) const {
  if (rows_->decoding == "char") return Characters::of(rows_->characters).decode(tokens);
  if (rows_->decoding != "gpt2") return as_numbers(tokens);
  // Read now, once in a run: only rank 0 writes a text.
  const Result<Tokenizer> tokenizer = make_tokenizer(config_, {});
  return tokenizer ? bulkhead::decode(*tokenizer, tokens) : as_numbers(tokens);
}

}  // namespace bulkhead
