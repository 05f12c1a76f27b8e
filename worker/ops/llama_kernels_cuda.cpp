// The kernels of cuda/llama.h on torch tensors and torch's current stream.
#include <ATen/cuda/CUDAContext.h>
#include <ATen/cuda/Exceptions.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "ops/cuda/llama.h"
#include "ops/llama_kernels.h"

namespace bulkhead::kernels {

RmsNorm rms_norm(const at::Tensor& x, const at::Tensor& branch, const at::Tensor& weight, double eps) {
  const std::int64_t rows = x.size(0), width = x.size(1);
  TORCH_CHECK(width <= cuda::kWidestRmsNorm);
  RmsNorm made{branch.defined() ? at::empty_like(x) : x,
               at::empty({rows, width}, x.options().dtype(at::kBFloat16)), at::empty({rows}, x.options())};
  cuda::RmsNorm work{};
  work.x = x.const_data_ptr<float>();
  work.branch = branch.defined() ? branch.const_data_ptr() : nullptr;
  work.weight = weight.const_data_ptr<float>();
  work.sum = branch.defined() ? made.sum.mutable_data_ptr<float>() : nullptr;
  work.normed = made.normed.mutable_data_ptr();
  work.rstd = made.rstd.mutable_data_ptr<float>();
  work.rows = rows;
  work.width = width;
  work.eps = static_cast<float>(eps);
  C10_CUDA_CHECK(cuda::rms_norm(work, at::cuda::getCurrentCUDAStream()));
  return made;
}

AddNormGradient rms_norm_gradient(const at::Tensor& sum_gradient, const at::Tensor& normed_gradient,
                                  const RmsNorm& saved, const at::Tensor& weight, bool with_branch,
                                  const at::Tensor& weight_sum) {
  const std::int64_t width = saved.sum.size(1);
  AddNormGradient made{at::empty_like(saved.sum), {}};
  if (with_branch) made.branch = at::empty_like(normed_gradient);
  const at::Tensor partial = at::empty({cuda::rms_norm_partials(width)}, saved.sum.options());
  cuda::RmsNormGradient work{};
  work.normed = normed_gradient.const_data_ptr();
  work.sum = sum_gradient.defined() ? sum_gradient.const_data_ptr<float>() : nullptr;
  work.saved_sum = saved.sum.const_data_ptr<float>();
  work.rstd = saved.rstd.const_data_ptr<float>();
  work.weight = weight.const_data_ptr<float>();
  work.x = made.x.mutable_data_ptr<float>();
  work.branch = with_branch ? made.branch.mutable_data_ptr() : nullptr;
  work.partial = partial.mutable_data_ptr<float>();
  work.weight_gradient = weight_sum.mutable_data_ptr<float>();
  work.rows = saved.sum.size(0);
  work.width = width;
  C10_CUDA_CHECK(cuda::rms_norm_gradient(work, at::cuda::getCurrentCUDAStream()));
  return made;
}

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  at::Tensor activated = at::empty_like(gate);
  C10_CUDA_CHECK(cuda::swiglu(gate.const_data_ptr(), up.const_data_ptr(), activated.mutable_data_ptr(),
                              gate.numel(), at::cuda::getCurrentCUDAStream()));
  return activated;
}

SwigluGradient swiglu_gradient(const at::Tensor& gradient, const at::Tensor& gate, const at::Tensor& up) {
  SwigluGradient made{at::empty_like(gate), at::empty_like(up)};
  cuda::SwigluGradient work{};
  work.activated = gradient.const_data_ptr();
  work.gate = gate.const_data_ptr();
  work.up = up.const_data_ptr();
  work.gate_gradient = made.gate.mutable_data_ptr();
  work.up_gradient = made.up.mutable_data_ptr();
  work.count = gate.numel();
  C10_CUDA_CHECK(cuda::swiglu_gradient(work, at::cuda::getCurrentCUDAStream()));
  return made;
}

at::Tensor rotary(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, bool backwards) {
  at::Tensor rotated = at::empty(x.sizes(), x.options());
  cuda::Rotary work{};
  work.x = x.const_data_ptr();
  work.rotated = rotated.mutable_data_ptr();
  work.cos = cos.const_data_ptr<float>();
  work.sin = sin.const_data_ptr<float>();
  work.batch = x.size(0);
  work.length = x.size(1);
  work.heads = x.size(2);
  work.dim = x.size(3);
  work.batch_stride = x.stride(0);
  work.length_stride = x.stride(1);
  work.head_stride = x.stride(2);
  work.direction = backwards ? -1.f : 1.f;
  C10_CUDA_CHECK(cuda::rotary(work, at::cuda::getCurrentCUDAStream()));
  return rotated;
}

}  // namespace bulkhead::kernels
