// SwiGLU's activation (Shazeer 2020) between the products of a feed-forward
// network, as one operation: nothing but its inputs is kept for backward.
//
// On a GPU with kernels (llama_kernels.h) in one pass; elsewhere the same function
// by torch's operations.  The compute thread.
#pragma once

#include <ATen/core/Tensor.h>

namespace bulkhead {

// gate and up [rows,width] of one type: gate · σ(gate) · up, in that type.
at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);

}  // namespace bulkhead
