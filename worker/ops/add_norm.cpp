#include "ops/add_norm.h"

#include <tuple>

#include <ATen/TensorOperators.h>
#include <ATen/ops/native_layer_norm.h>
#include <ATen/ops/native_layer_norm_backward.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ops/gradient_sum.h"
#include "ops/kernels.h"

namespace bulkhead {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

constexpr double kEpsilon = 1e-5;
constexpr std::int64_t kWidest = 2048;  // that a kernel holds in registers

bool have_kernels(const at::Tensor& x, at::ScalarType type) {
  return type == at::kBFloat16 && x.scalar_type() == at::kFloat && x.is_contiguous() &&
         x.size(1) <= kWidest && x.size(1) % 8 == 0 && kernels::serve(x);
}

kernels::AddNorm forward_of(const at::Tensor& x, const at::Tensor& branch, const at::Tensor& weight,
                            const at::Tensor& bias, at::ScalarType type) {
  if (have_kernels(x, type)) return kernels::add_norm(x, branch, weight, bias);
  kernels::AddNorm made;
  made.sum = branch.defined() ? x + branch : x;
  std::tie(made.normed, made.mean, made.rstd) =
      at::native_layer_norm(made.sum, {x.size(1)}, weight, bias, kEpsilon);
  made.normed = made.normed.to(type);
  return made;
}

struct AddNorm : Function<AddNorm> {
  // Where there is no branch, or no bias of it, they are anything: autograd wants tensors.
  static variable_list forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& branch,
                               bool has_branch, const at::Tensor& branch_bias, bool has_branch_bias,
                               const at::Tensor& weight, const at::Tensor& bias, at::ScalarType type) {
    const kernels::AddNorm made = forward_of(x, has_branch ? branch : at::Tensor(), weight, bias, type);
    context->set_materialize_grads(false);
    context->save_for_backward({made.sum, made.mean, made.rstd, weight, bias, branch_bias});
    context->saved_data["has_branch"] = has_branch;
    context->saved_data["has_branch_bias"] = has_branch_bias;
    context->saved_data["type"] = type;
    return {made.sum, made.normed};
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &weight = saved[3], &bias = saved[4];
    const kernels::AddNorm made{saved[0], {}, saved[1], saved[2]};
    const bool has_branch = context->saved_data["has_branch"].toBool();
    const auto type = context->saved_data["type"].toScalarType();
    const at::Tensor at_normed = gradients[1].defined()
                                     ? gradients[1].contiguous()
                                     : at::zeros_like(made.sum, made.sum.options().dtype(type));
    const at::Tensor at_sum = gradients[0].defined() ? gradients[0].contiguous() : at::Tensor();
    const GradientSum for_weight = gradient_sum(weight), for_bias = gradient_sum(bias);
    const GradientSum for_branch_bias =
        context->saved_data["has_branch_bias"].toBool() ? gradient_sum(saved[5]) : GradientSum();
    kernels::AddNormGradient result;
    if (have_kernels(made.sum, type) && for_weight.sum.defined() && for_bias.sum.defined()) {
      result = kernels::add_norm_gradient(at_sum, at_normed, made, weight, has_branch,
                                          {for_weight.sum, for_bias.sum, for_branch_bias.sum});
    } else {
      at::Tensor at_weight, at_bias;
      std::tie(result.x, at_weight, at_bias) =
          at::native_layer_norm_backward(at_normed.to(at::kFloat), made.sum, {made.sum.size(1)}, made.mean,
                                         made.rstd, weight, bias, {true, true, true});
      if (for_weight.sum.defined()) for_weight.sum.add_(at_weight);
      if (for_bias.sum.defined()) for_bias.sum.add_(at_bias);
      if (at_sum.defined()) result.x = result.x + at_sum;
      if (has_branch) result.branch = result.x.to(type);
      if (for_branch_bias.sum.defined()) for_branch_bias.sum.add_(result.x.sum(0));
    }
    return {result.x,     result.branch,       at::Tensor(),      for_branch_bias.returned,
            at::Tensor(), for_weight.returned, for_bias.returned, at::Tensor()};
  }
};

}  // namespace

Normed add_norm(const at::Tensor& x, const Branch& branch, const at::Tensor& weight, const at::Tensor& bias,
                at::ScalarType type) {
  const auto or_any = [&](const at::Tensor& tensor) { return tensor.defined() ? tensor : bias; };
  const auto made = AddNorm::apply(x, or_any(branch.value), branch.value.defined(), or_any(branch.bias),
                                   branch.bias.defined(), weight, bias, type);
  return {made[0], made[1]};
}

}  // namespace bulkhead
