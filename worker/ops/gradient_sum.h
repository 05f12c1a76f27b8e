// Where a fused operation leaves the gradient of a parameter.
//
// Added straight to the parameter's gradient where that exists (GradientReducer
// gives it a lasting place), so that it is neither made nor copied apart; as an
// operation's own result where it does not.  Autograd calls what waits for the
// parameter's gradient in both cases.  In a backward pass only.
#pragma once

#include <utility>

#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>

namespace bulkhead {

// What GradientReducer knows of a gradient's lasting place; the gradient's tensor
// carries it.
struct GradientPlace : c10::BackendMeta {
  bool empty = false;    // what lies there is an earlier step's
  bool claimed = false;  // an operation has added to it in this step

  static GradientPlace* of(const at::Tensor& gradient) {
    return dynamic_cast<GradientPlace*>(gradient.unsafeGetTensorImpl()->get_backend_meta());
  }
};

struct GradientSum {
  at::Tensor sum;  // float32, the parameter's shape, contiguous: to be added to; undefined for a frozen one
  at::Tensor returned;  // what backward() returns for the parameter: `sum`, or nothing where it is in place
  bool fresh = false;   // `sum` is not to be added to but to be written
};

// For an operation that can write as well as add: what is written need not be
// cleared before.
inline GradientSum gradient_to_write(const at::Tensor& parameter) {
  if (!parameter.requires_grad()) return {};
  const at::Tensor& there = parameter.grad();
  if (there.defined() && there.is_contiguous() && there.scalar_type() == at::kFloat) {
    GradientPlace* place = GradientPlace::of(there);
    if (place == nullptr) return {there, {}};
    place->claimed = true;
    return {there, {}, std::exchange(place->empty, false)};
  }
  const at::Tensor sum = at::zeros(parameter.sizes(), parameter.options().dtype(at::kFloat));
  return {sum, sum};
}

// For any other: `sum` is never fresh.
inline GradientSum gradient_sum(const at::Tensor& parameter) {
  GradientSum to = gradient_to_write(parameter);
  if (std::exchange(to.fresh, false)) to.sum.zero_();
  return to;
}

}  // namespace bulkhead
