// The safetensors format (github.com/huggingface/safetensors): 8 bytes of
// little-endian header length, a JSON header, the tensors' raw bytes.  No
// pickle, no code, readable by everybody.
//
// Writing gives the bytes piece by piece to a sink.  Reading believes nothing:
// lengths, types, shapes, offsets, overlaps and gaps are checked before a
// tensor is made.  Any thread.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "batch.h"
#include "protocol/result.h"
#include "protocol/tensor.h"

namespace bulkhead {

// Takes the next bytes; they are only there during the call.
using ByteSink = std::function<Status(const void* data, std::size_t size_bytes)>;
using TextMap = std::map<std::string, std::string>;

// Writes tensors (any device, any strides; bool, integers up to 64 bits,
// float16, bfloat16, float32, float64) under distinct UTF-8 names.
// Tensors lie by falling element size, then name, as the reference does it, so
// each is aligned.  `metadata` may be empty.
Status write_safetensors(const std::vector<NamedTensor>& tensors, const TextMap& metadata,
                         const ByteSink& sink);

struct SafeTensors {
  std::vector<NamedTensor> tensors;  // by name; CPU
  TextMap metadata;
};

// The tensors of a whole file's bytes.  They share the Blob and keep its owner
// alive; who wants to write into one clones it.  Fails (malformed) with a
// sentence that begins with `file` and names the tensor.
Result<SafeTensors> parse_safetensors(const Blob& bytes, const std::string& file);

}  // namespace bulkhead
