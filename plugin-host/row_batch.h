// The calls of the data set stage and of collate: rows as JSON texts, token
// samples as lists of numbers (protocol/README.md, "Calls"), and what a plugin
// makes of them.
//
// Checks what the rank sent and what the plugin gave.  Used on the host's one
// thread; what it was made from must outlive it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "bulkhead/abi.h"
#include "protocol/messages.h"
#include "protocol/number_lists.h"
#include "protocol/result.h"

namespace bulkhead {

// preprocess, keep, encode.
class RowBatch {
 public:
  // kMismatch: the batch holds no rows, or a row is no JSON object.
  static Result<RowBatch> of(const Call& call);

  std::size_t size() const { return rows_.size(); }
  const Value& row(std::size_t i) const { return rows_[i]; }
  std::int64_t number(std::size_t i) const { return numbers_[i]; }

  // Every key of any row with its list of values, null where a row lacks it.
  Value columns() const;

 private:
  std::vector<Value> rows_;
  std::vector<std::int64_t> numbers_;
};

// The texts of the rows that these columns hold.  kMismatch, a sentence that
// begins with what preprocess gave: no map of lists, lists of unequal lengths.
Result<std::vector<std::string>> rows_of(const Value& columns);

// collate.
class TokenBatch {
 public:
  // kMismatch: the batch holds no token samples.
  static Result<TokenBatch> of(const Call& call);

  // For each sample its input_ids and its labels.
  const std::vector<abi::Tensor>& tensors() const { return tensors_; }

 private:
  explicit TokenBatch(NumberLists ids, NumberLists labels);

  NumberLists ids_;
  NumberLists labels_;
  std::vector<std::int64_t> lengths_;  // of the samples: the tensors' shapes
  std::vector<abi::Tensor> tensors_;
};

}  // namespace bulkhead
