#include "ops/rms_norm.h"

#include <optional>

#include <ATen/TensorOperators.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ops/gradient_sum.h"
#include "ops/llama_kernels.h"

namespace bulkhead {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

constexpr std::int64_t kWidest = 8192;  // that a kernel holds in registers

bool have_kernels(const at::Tensor& x, at::ScalarType type) {
  return type == at::kBFloat16 && x.scalar_type() == at::kFloat && x.is_contiguous() &&
         x.size(1) <= kWidest && x.size(1) % 8 == 0 && kernels::serve(x);
}

kernels::RmsNorm forward_of(const at::Tensor& x, const at::Tensor& branch, const at::Tensor& weight,
                            double eps, at::ScalarType type) {
  if (have_kernels(x, type)) return kernels::rms_norm(x, branch, weight, eps);
  kernels::RmsNorm made;
  made.sum = branch.defined() ? x + branch : x;
  made.rstd = at::rsqrt(made.sum.square().mean(1) + eps);
  made.normed = (made.sum * made.rstd.unsqueeze(1) * weight).to(type);
  return made;
}

// The derivation: with n = sum · rstd and g the gradient of n, that of sum is
// rstd · (g − n · mean(g · n)).
kernels::AddNormGradient reference(const at::Tensor& at_sum, const at::Tensor& at_normed,
                                   const kernels::RmsNorm& made, const at::Tensor& weight, bool has_branch,
                                   const at::Tensor& weight_sum) {
  const at::Tensor rstd = made.rstd.unsqueeze(1);
  const at::Tensor standard = made.sum * rstd;
  const at::Tensor d = at_normed.to(made.sum.scalar_type());
  if (weight_sum.defined()) weight_sum.add_((d * standard).sum(0));
  const at::Tensor g = d * weight;
  kernels::AddNormGradient result;
  result.x = rstd * (g - standard * (g * standard).mean(1, /*keepdim=*/true));
  if (at_sum.defined()) result.x = result.x + at_sum;
  if (has_branch) result.branch = result.x.to(at_normed.scalar_type());
  return result;
}

struct AddRmsNorm : Function<AddRmsNorm> {
  static variable_list forward(AutogradContext* context, const at::Tensor& x,
                               const std::optional<at::Tensor>& branch, const at::Tensor& weight, double eps,
                               at::ScalarType type) {
    const kernels::RmsNorm made = forward_of(x, branch.value_or(at::Tensor()), weight, eps, type);
    context->set_materialize_grads(false);
    context->save_for_backward({made.sum, made.rstd, weight});
    context->saved_data["has_branch"] = branch.has_value();
    context->saved_data["type"] = type;
    return {made.sum, made.normed};
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const kernels::RmsNorm made{saved[0], {}, saved[1]};
    const at::Tensor& weight = saved[2];
    const bool has_branch = context->saved_data["has_branch"].toBool();
    const auto type = context->saved_data["type"].toScalarType();
    const at::Tensor at_normed = gradients[1].defined()
                                     ? gradients[1].contiguous()
                                     : at::zeros_like(made.sum, made.sum.options().dtype(type));
    const at::Tensor at_sum = gradients[0].defined() ? gradients[0].contiguous() : at::Tensor();
    const GradientSum for_weight = gradient_sum(weight);
    const kernels::AddNormGradient result =
        have_kernels(made.sum, type) && for_weight.sum.defined()
            ? kernels::rms_norm_gradient(at_sum, at_normed, made, weight, has_branch, for_weight.sum)
            : reference(at_sum, at_normed, made, weight, has_branch, for_weight.sum);
    return {result.x, result.branch, for_weight.returned, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

Normed add_rms_norm(const at::Tensor& x, const at::Tensor& branch, const at::Tensor& weight, double eps,
                    at::ScalarType type) {
  const auto given = branch.defined() ? std::optional(branch) : std::nullopt;
  const auto made = AddRmsNorm::apply(x, given, weight, eps, type);
  return {made[0], made[1]};
}

}  // namespace bulkhead
