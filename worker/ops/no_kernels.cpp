// A build without CUDA or without nvcc.
#include "ops/kernels.h"
#include "protocol/result.h"

namespace bulkhead::kernels {

bool serve(const at::Tensor&) { return false; }
bool has_gpu(const at::Tensor&) { return false; }

at::Tensor product(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&) {
  CHECK(false);
  return {};
}
GeluProduct gelu_product(const at::Tensor&, const at::Tensor&, const at::Tensor&) {
  CHECK(false);
  return {};
}
at::Tensor input_gradient(const at::Tensor&, const at::Tensor&) {
  CHECK(false);
  return {};
}
at::Tensor gelu_input_gradient(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&) {
  CHECK(false);
  return {};
}
void add_weight_gradient(const at::Tensor&, const at::Tensor&, const at::Tensor&, bool) { CHECK(false); }
void add_bias_gradient(const at::Tensor&, const at::Tensor&) { CHECK(false); }
void gelu_gradient(const at::Tensor&, const at::Tensor&, const at::Tensor&) { CHECK(false); }
at::Tensor pack_three(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&) {
  CHECK(false);
  return {};
}
AddNorm add_norm(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&) {
  CHECK(false);
  return {};
}
AddNormGradient add_norm_gradient(const at::Tensor&, const at::Tensor&, const AddNorm&, const at::Tensor&,
                                  bool, const AddNormSums&) {
  CHECK(false);
  return {};
}
at::Tensor embed(const at::Tensor&, const at::Tensor&, const at::Tensor&) {
  CHECK(false);
  return {};
}
void add_embedding_gradients(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&) {
  CHECK(false);
}
RowLosses cross_entropy(const at::Tensor&, const at::Tensor&, double, bool) {
  CHECK(false);
  return {};
}
void Adamw::prepare(const Step&) { CHECK(false); }
at::Tensor Adamw::update(const std::vector<at::Tensor>&) {
  CHECK(false);
  return {};
}

}  // namespace bulkhead::kernels
