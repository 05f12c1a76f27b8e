// add_norm.h's step of the residual stream with RMSNorm (Zhang and Sennrich 2019)
// in the place of layer norm: no mean is taken off, and there is no bias.
//
// On a GPU with kernels (llama_kernels.h) the sum is read once for both; elsewhere
// the same function by torch's operations.  The compute thread.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/add_norm.h"

namespace bulkhead {

// As add_norm, `normed` being sum / √(mean square + eps) · weight.
Normed add_rms_norm(const at::Tensor& x, const at::Tensor& branch, const at::Tensor& weight, double eps,
                    at::ScalarType type);

}  // namespace bulkhead
