// Where a fused operation leaves the gradient of a parameter.
//
// Added straight to the parameter's gradient where that exists (GradientReducer
// gives it a lasting place), so that it is neither made nor copied apart; as an
// operation's own result where it does not.  Autograd calls what waits for the
// parameter's gradient in both cases.  In a backward pass only.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>

namespace bulkhead {

struct GradientSum {
  at::Tensor sum;  // float32, the parameter's shape, contiguous: to be added to; undefined for a frozen one
  at::Tensor returned;  // what backward() returns for the parameter: `sum`, or nothing where it is in place
};

inline GradientSum gradient_sum(const at::Tensor& parameter) {
  if (!parameter.requires_grad()) return {};
  const at::Tensor& there = parameter.grad();
  if (there.defined() && there.is_contiguous() && there.scalar_type() == at::kFloat) return {there, {}};
  const at::Tensor sum = at::zeros(parameter.sizes(), parameter.options().dtype(at::kFloat));
  return {sum, sum};
}

}  // namespace bulkhead
