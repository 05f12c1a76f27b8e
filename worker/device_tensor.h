// A tensor that lies in a block of this process' on the rank's GPU
// (protocol/device_memory.h), as torch sees it.
#pragma once

#include <ATen/core/Tensor.h>

#include "protocol/tensor.h"

namespace bulkhead {

// Shares the bytes and keeps their owner; what the current stream is given from
// here on finds them there, and until the last reference has gone.  To be
// released by the thread whose current stream has used it, while nothing is
// recorded on that.  A build without CUDA has none (our bug).
at::Tensor device_tensor(const Tensor& wire, at::ScalarType type);

}  // namespace bulkhead
