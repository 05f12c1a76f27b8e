#include "row_batch.h"

#include <utility>

#include "protocol/texts.h"

namespace bulkhead {
namespace {

constexpr std::int64_t kDense = 1;  // the one stride of a list

Error unfit(const Call& call, const std::string& what) {
  return {ErrorCode::kMismatch, "the rank sent no batch for " + call.hook + ": " + what};
}

Error given(const std::string& what) { return {ErrorCode::kMismatch, "preprocess gave " + what}; }

}  // namespace

Result<RowBatch> RowBatch::of(const Call& call) {
  Result<std::vector<std::string>> texts = unpack_texts(call.batch, "rows");
  if (!texts) return unfit(call, texts.error().message);
  Result<std::vector<std::int64_t>> numbers = unpack_numbers(call.batch, "sample");
  if (!numbers) return unfit(call, numbers.error().message);
  if (numbers->size() != texts->size())
    return unfit(call, "\"rows\" and \"sample\" are of different lengths");
  RowBatch batch;
  batch.numbers_ = std::move(*numbers);
  for (const std::string& text : *texts) {
    Value row = Value::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!row.is_object()) return unfit(call, "a row is no JSON object");
    batch.rows_.push_back(std::move(row));
  }
  return batch;
}

Value RowBatch::columns() const {
  Value columns = Value::object();
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    for (const auto& [key, value] : rows_[i].items()) {
      Value& column = columns[key];
      if (column.is_null()) column = Value(Value::array_t(rows_.size()));
      column[i] = value;
    }
  }
  return columns;
}

Result<std::vector<std::string>> rows_of(const Value& columns) {
  if (!columns.is_object()) return given("no map of columns");
  std::vector<Value> rows;
  std::string first;
  for (const auto& [key, column] : columns.items()) {
    if (!column.is_array()) return given("a column \"" + key + "\" that is no list");
    if (first.empty()) {
      first = key + " has " + std::to_string(column.size());
      rows.resize(column.size(), Value::object());
    }
    if (column.size() != rows.size()) {
      return given("columns of different lengths: " + first + ", " + key + " has " +
                   std::to_string(column.size()));
    }
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i][key] = column[i];
  }
  std::vector<std::string> texts;
  texts.reserve(rows.size());
  for (const Value& row : rows) texts.push_back(row.dump());
  return texts;
}

Result<TokenBatch> TokenBatch::of(const Call& call) {
  Result<NumberLists> ids = NumberLists::unpack(call.batch, "input_ids");
  if (!ids) return unfit(call, ids.error().message);
  Result<NumberLists> labels = NumberLists::unpack(call.batch, "labels");
  if (!labels) return unfit(call, labels.error().message);
  bool alike = ids->size() == labels->size();
  for (std::size_t i = 0; alike && i < ids->size(); ++i) alike = (*ids)[i].size() == (*labels)[i].size();
  if (!alike) return unfit(call, "\"input_ids\" and \"labels\" are of different lengths");
  return TokenBatch(std::move(*ids), std::move(*labels));
}

TokenBatch::TokenBatch(NumberLists ids, NumberLists labels)
    : ids_(std::move(ids)), labels_(std::move(labels)) {
  for (std::size_t i = 0; i < ids_.size(); ++i) lengths_.push_back(static_cast<std::int64_t>(ids_[i].size()));
  for (std::size_t i = 0; i < ids_.size(); ++i) {
    tensors_.push_back(
        {abi::text("input_ids"), abi::DType::kInt64, 1, &lengths_[i], &kDense, ids_[i].data()});
    tensors_.push_back(
        {abi::text("labels"), abi::DType::kInt64, 1, &lengths_[i], &kDense, labels_[i].data()});
  }
}

}  // namespace bulkhead
