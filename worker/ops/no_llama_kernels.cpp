// A build without CUDA or without nvcc.
#include "ops/llama_kernels.h"
#include "protocol/result.h"

namespace bulkhead::kernels {

RmsNorm rms_norm(const at::Tensor&, const at::Tensor&, const at::Tensor&, double) {
  CHECK(false);
  return {};
}
AddNormGradient rms_norm_gradient(const at::Tensor&, const at::Tensor&, const RmsNorm&, const at::Tensor&,
                                  bool, const at::Tensor&) {
  CHECK(false);
  return {};
}
at::Tensor swiglu(const at::Tensor&, const at::Tensor&) {
  CHECK(false);
  return {};
}
SwigluGradient swiglu_gradient(const at::Tensor&, const at::Tensor&, const at::Tensor&) {
  CHECK(false);
  return {};
}
at::Tensor rotary(const at::Tensor&, const at::Tensor&, const at::Tensor&, bool) {
  CHECK(false);
  return {};
}

}  // namespace bulkhead::kernels
