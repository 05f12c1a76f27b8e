// A batch as the trainer holds it: named torch tensors in a fixed order, and
// the two doors between it and the wire form of protocol/tensor.h.
//
// Nothing is copied where it need not be: a contiguous CPU tensor and its wire
// form share memory.  Whoever reads a shared tensor may not write into it; the
// trainer never does.  Any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <ATen/core/Tensor.h>

#include "protocol/arena.h"
#include "protocol/result.h"
#include "protocol/tensor.h"

namespace bulkhead {

struct NamedTensor {
  std::string name;
  at::Tensor value;
};

using TensorBatch = std::vector<NamedTensor>;

// The tensor of that name, or null.  Lives as long as the batch.
const at::Tensor* find_tensor(const TensorBatch& batch, std::string_view name);

// The tensor of that name; its absence is our bug (a batch from outside has
// been through check_batch or a schema comparison).
const at::Tensor& tensor_named(const TensorBatch& batch, std::string_view name);

// Memory for the tensors of new batches, where hosts on this machine find them
// without a copy.  What is in it may be changed by the host that a batch is
// given to: floating point numbers, which cannot lead a reader astray; integers
// lie where hosts can only read.  One thread; tensors outlive it.
class BatchMemory {
 public:
  // `most_bytes`: of each kind.
  explicit BatchMemory(std::size_t most_bytes)
      : floats_(most_bytes, PeerAccess::kWrite), others_(most_bytes) {}

  // A dense CPU tensor with whatever was there before; to_wire() knows it
  // again.  Where there is no room, or it is small, a tensor like any other.
  at::Tensor empty(at::IntArrayRef shape, at::ScalarType type);

 private:
  Arena floats_, others_;
};

// The batch with every tensor on `device`; tensors that are there already are
// shared.
TensorBatch to_device(const TensorBatch& batch, at::Device device);

// For sending.  Contiguous CPU tensors are shared (the Blob's owner holds the
// tensor), others are copied.  A tensor type without a DType is our bug.
Batch to_wire(const TensorBatch& batch);

// Of all its tensors together.
std::size_t bytes_of(const Batch& batch);

// For training.  Shares each Blob, strides and all, and keeps its owner alive, also one on the rank's GPU
// (device_tensor.h: on the compute thread); only bytes that
// are not aligned for their type are copied.  Fails (malformed) where bytes and
// shape disagree, or a bool is neither 0 nor 1.
Result<TensorBatch> from_wire(const Batch& batch);

}  // namespace bulkhead
