// Rotary position embedding (Su et al. 2021), in the order of Llama's files as
// transformers reads them: numbers i and i + dim/2 of a head are one point, turned
// by an angle that grows with its position.
//
// On a GPU with kernels (llama_kernels.h) in one pass; elsewhere the same function
// by torch's operations.  The compute thread.
#pragma once

#include <ATen/core/Tensor.h>

namespace bulkhead {

// x [N,T,heads,dim], dim even; cos and sin of the angles, float32 [≥ T,dim/2], the
// first row for the first position.  Turned in float32, returned in the type of x.
at::Tensor rotary(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

}  // namespace bulkhead
