// A list of texts (captions, paths) as it travels in a batch: tensor NAME,
// uint8 [total bytes], holds the UTF-8 of all of them behind one another, and
// NAME.ends, int64 [N], where each ends.
//
// That the bytes are UTF-8 is the business of whoever made them.  Pure; any
// thread.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/result.h"
#include "protocol/tensor.h"

namespace bulkhead {

// "captions" → "captions.ends".
std::string ends_name(std::string_view name);

// The tensors NAME and NAME.ends, in this order.
Batch pack_texts(std::string_view name, std::span<const std::string> texts);

// The texts of NAME in `batch`, copied.  kMismatch: one of the two tensors is
// absent, has another type or dimension, or the ends do not ascend from 0 to
// the number of bytes; the sentence names the tensor.
Result<std::vector<std::string>> unpack_texts(const Batch& batch, std::string_view name);

// The tensor of that name; nullptr when there is none.
const Tensor* find_tensor(const Batch& batch, std::string_view name);

}  // namespace bulkhead
