#include "ops/linear.h"

#include <optional>

#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sum.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ops/gradient_sum.h"
#include "ops/kernels.h"

namespace bulkhead {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

bool have_kernels(const at::Tensor& x, const at::Tensor& weight) {
  return x.scalar_type() == at::kBFloat16 && kernels::serve(x) && kernels::serve(weight) &&
         weight.size(0) % 8 == 0;
}

at::Tensor input_gradient(const at::Tensor& gradient, const at::Tensor& weight) {
  return have_kernels(gradient, weight) ? kernels::input_gradient(gradient, weight)
                                        : at::mm(gradient, weight);
}

at::Tensor weight_gradient(const at::Tensor& parameter, const at::Tensor& gradient, const at::Tensor& x) {
  const bool fast = have_kernels(x, gradient);
  const GradientSum to = fast ? gradient_to_write(parameter) : gradient_sum(parameter);
  if (!to.sum.defined()) return {};
  if (fast) {
    kernels::add_weight_gradient(to.sum, gradient, x, to.fresh);
  } else {
    to.sum.add_(at::mm(gradient.t(), x));
  }
  return to.returned;
}

at::Tensor bias_gradient(const at::Tensor& parameter, const at::Tensor& gradient) {
  const GradientSum to = gradient_sum(parameter);
  if (!to.sum.defined()) return {};
  if (gradient.scalar_type() == at::kBFloat16 && kernels::serve(gradient)) {
    kernels::add_bias_gradient(to.sum, gradient);
  } else {
    to.sum.add_(at::sum(gradient, {0}, /*keepdim=*/false, at::kFloat));
  }
  return to.returned;
}

struct BiasGradient : Function<BiasGradient> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& bias) {
    context->save_for_backward({bias});
    return x;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const at::Tensor bias = context->get_saved_variables()[0];
    return {gradients[0], bias_gradient(bias, gradients[0].reshape({-1, bias.size(0)}))};
  }
};

struct Linear : Function<Linear> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias, const at::Tensor& working_weight,
                            const at::Tensor& working_bias) {
    context->save_for_backward({x, weight, bias.value_or(at::Tensor()), working_weight});
    const at::Tensor added = bias ? working_bias : at::Tensor();
    return have_kernels(x, working_weight) ? kernels::product(x, working_weight, added)
                                           : at::linear(x, working_weight, added);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor gradient = gradients[0].contiguous();
    return {input_gradient(gradient, saved[3]), weight_gradient(saved[1], gradient, saved[0]),
            saved[2].defined() ? bias_gradient(saved[2], gradient) : at::Tensor(), at::Tensor(),
            at::Tensor()};
  }
};

struct GeluNetwork : Function<GeluNetwork> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight_in,
                            const at::Tensor& bias_in, const at::Tensor& weight_out,
                            const at::Tensor& bias_out, const at::Tensor& working_weight_in,
                            const at::Tensor& working_bias_in, const at::Tensor& working_weight_out,
                            const at::Tensor& working_bias_out) {
    kernels::GeluProduct middle;
    at::Tensor result;
    if (have_kernels(x, working_weight_in) && have_kernels(x, working_weight_out)) {
      middle = kernels::gelu_product(x, working_weight_in, working_bias_in);
      result = kernels::product(middle.activated, working_weight_out, working_bias_out);
    } else {
      middle.inner = at::linear(x, working_weight_in, working_bias_in);
      middle.activated = at::gelu(middle.inner, "tanh");
      result = at::linear(middle.activated, working_weight_out, working_bias_out);
    }
    context->save_for_backward({x, middle.inner, middle.activated, weight_in, bias_in, weight_out, bias_out,
                                working_weight_in, working_weight_out});
    return result;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &inner = saved[1], &activated = saved[2];
    const at::Tensor &working_weight_in = saved[7], &working_weight_out = saved[8];
    const at::Tensor gradient = gradients[0].contiguous();
    const at::Tensor for_weight_out = weight_gradient(saved[5], gradient, activated);
    const at::Tensor for_bias_out = bias_gradient(saved[6], gradient);
    at::Tensor at_inner, for_bias_in;
    if (have_kernels(gradient, working_weight_out) && kernels::serve(inner)) {
      const GradientSum to = gradient_sum(saved[4]);
      at_inner = kernels::gelu_input_gradient(gradient, working_weight_out, inner, to.sum);
      for_bias_in = to.returned;
    } else {
      at_inner = at::gelu_backward(at::mm(gradient, working_weight_out), inner, "tanh");
      for_bias_in = bias_gradient(saved[4], at_inner);
    }
    return {input_gradient(at_inner, working_weight_in),
            weight_gradient(saved[3], at_inner, x),
            for_bias_in,
            for_weight_out,
            for_bias_out,
            at::Tensor(),
            at::Tensor(),
            at::Tensor(),
            at::Tensor()};
  }
};

}  // namespace

at::Tensor with_bias_gradient(const at::Tensor& x, const at::Tensor& bias) {
  return BiasGradient::apply(x, bias);
}

at::Tensor linear(const at::Tensor& x, const Factor& weight, const Factor& bias) {
  const bool has_bias = bias.parameter.defined();
  return Linear::apply(x, weight.parameter, has_bias ? std::optional(bias.parameter) : std::nullopt,
                       weight.working, has_bias ? bias.working : weight.working);
}

at::Tensor gelu_network(const at::Tensor& x, const Factor& weight_in, const Factor& bias_in,
                        const Factor& weight_out, const Factor& bias_out) {
  return GeluNetwork::apply(x, weight_in.parameter, bias_in.parameter, weight_out.parameter,
                            bias_out.parameter, weight_in.working, bias_in.working, weight_out.working,
                            bias_out.working);
}

}  // namespace bulkhead
