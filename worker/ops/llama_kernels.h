// What Llama's blocks ask of a GPU beside kernels.h, under the same rules.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/kernels.h"

namespace bulkhead::kernels {

// x float32 [rows,width], branch bfloat16 or undefined, width ≤ 8192: x + branch
// (x itself where there is no branch), its RMSNorm in bfloat16, and 1/√(mean
// square + eps) float32 [rows].
struct RmsNorm {
  at::Tensor sum, normed, rstd;
};
RmsNorm rms_norm(const at::Tensor& x, const at::Tensor& branch, const at::Tensor& weight, double eps);

// As add_norm_gradient.
AddNormGradient rms_norm_gradient(const at::Tensor& sum_gradient, const at::Tensor& normed_gradient,
                                  const RmsNorm& saved, const at::Tensor& weight, bool with_branch,
                                  const at::Tensor& weight_sum);

// gate · σ(gate) · up; dense bfloat16 [rows,width].
at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);
struct SwigluGradient {
  at::Tensor gate, up;
};
SwigluGradient swiglu_gradient(const at::Tensor& gradient, const at::Tensor& gate, const at::Tensor& up);

// x bfloat16 [N,T,heads,dim], dim a multiple of 16, cos and sin float32 [T,dim/2];
// backwards: by the negative angles.
at::Tensor rotary(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, bool backwards);

}  // namespace bulkhead::kernels
