// Lists of whole numbers of unequal lengths (a token sample each) as they
// travel in a batch: tensor NAME, int64 [total], holds all of them behind one
// another, and NAME.ends, int64 [N], where each ends.
//
// The same shape as a list of texts (texts.h).  Pure; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "protocol/result.h"
#include "protocol/tensor.h"

namespace bulkhead {

class NumberLists {
 public:
  std::size_t size() const { return ends_.size(); }
  std::span<const std::int64_t> operator[](std::size_t i) const {
    const std::int64_t begin = i == 0 ? 0 : ends_[i - 1];
    return {values_.data() + begin, static_cast<std::size_t>(ends_[i] - begin)};
  }
  void add(std::span<const std::int64_t> list) {
    values_.insert(values_.end(), list.begin(), list.end());
    ends_.push_back(static_cast<std::int64_t>(values_.size()));
  }

  // The tensors NAME and NAME.ends, in this order; the values are copied.
  Batch pack(std::string_view name) const;

  // Those of NAME in `batch`, copied.  kMismatch: one of the two tensors is
  // absent, has another type or dimension, or the ends do not ascend from 0 to
  // the number of values; the sentence names the tensor.
  static Result<NumberLists> unpack(const Batch& batch, std::string_view name);

 private:
  std::vector<std::int64_t> values_;
  std::vector<std::int64_t> ends_;
};

// int64 [N] of that name; kMismatch, naming it, where it is absent or another.
Result<std::vector<std::int64_t>> unpack_numbers(const Batch& batch, std::string_view name);

// The tensor int64 [N].
Tensor pack_numbers(std::string_view name, std::span<const std::int64_t> values);

}  // namespace bulkhead
