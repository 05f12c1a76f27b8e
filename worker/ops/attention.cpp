#include "ops/attention.h"

#include <array>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/sum.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ops/gradient_sum.h"
#include "ops/kernels.h"

namespace bulkhead {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// [N,heads,T,·] of one of the three.
at::Tensor part_of(const at::Tensor& qkv, std::int64_t heads, std::int64_t which) {
  return qkv.view({qkv.size(0), qkv.size(1), 3, heads, -1}).select(2, which).transpose(1, 2);
}

at::Tensor as_rows(const at::Tensor& part) {
  return part.transpose(1, 2).reshape({part.size(0) * part.size(2), -1});
}

// The gradients of the three, side by side, and their sum over rows.
at::Tensor packed(const variable_list& parts, const at::Tensor& bias_sum) {
  const std::array<at::Tensor, 3> rows{as_rows(parts[0]), as_rows(parts[1]), as_rows(parts[2])};
  if (rows[0].scalar_type() == at::kBFloat16 && kernels::serve(rows[0]) && kernels::serve(rows[1]) &&
      kernels::serve(rows[2])) {
    return kernels::pack_three(rows[0], rows[1], rows[2], bias_sum);
  }
  at::Tensor all = at::cat({rows[0], rows[1], rows[2]}, 1);
  if (bias_sum.defined()) bias_sum.add_(at::sum(all, {0}, /*keepdim=*/false, at::kFloat));
  return all;
}

struct Attention : Function<Attention> {
  // Where there is no bias, `bias` is anything: autograd wants a tensor.
  static at::Tensor forward(AutogradContext* context, const at::Tensor& qkv, const at::Tensor& bias,
                            bool has_bias, std::int64_t heads, bool with_gradient) {
    // A graph of its own, which backward() goes through: that of the whole would
    // clear and add the gradient of qkv three times.
    const at::AutoGradMode mode(with_gradient);
    variable_list parts;
    for (std::int64_t which = 0; which < 3; ++which) {
      parts.push_back(part_of(qkv.detach(), heads, which).detach().requires_grad_(with_gradient));
    }
    const at::Tensor mixed =
        at::scaled_dot_product_attention(parts[0], parts[1], parts[2], /*attn_mask=*/{}, /*dropout_p=*/0.0,
                                         /*is_causal=*/true);
    if (with_gradient) context->save_for_backward({parts[0], parts[1], parts[2], mixed, bias});
    context->saved_data["has_bias"] = has_bias;
    return as_rows(mixed.detach()).view({qkv.size(0), qkv.size(1), -1});
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor& mixed = saved[3];
    const at::Tensor gradient =
        gradients[0].reshape({mixed.size(0), mixed.size(2), mixed.size(1), mixed.size(3)});
    const variable_list parts =
        torch::autograd::grad({mixed}, {saved[0], saved[1], saved[2]}, {gradient.transpose(1, 2)});
    const GradientSum for_bias =
        context->saved_data["has_bias"].toBool() ? gradient_sum(saved[4]) : GradientSum();
    const at::Tensor at_qkv = packed(parts, for_bias.sum).view({mixed.size(0), mixed.size(2), -1});
    return {at_qkv, for_bias.returned, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor attention(const at::Tensor& qkv, std::int64_t heads, const at::Tensor& bias) {
  const bool with_gradient = at::GradMode::is_enabled() && qkv.requires_grad();
  return Attention::apply(qkv, bias.defined() ? bias : qkv, bias.defined(), heads, with_gradient);
}

}  // namespace bulkhead
