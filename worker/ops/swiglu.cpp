#include "ops/swiglu.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/silu_backward.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ops/llama_kernels.h"

namespace bulkhead {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

bool have_kernels(const at::Tensor& gate) {
  return gate.scalar_type() == at::kBFloat16 && kernels::serve(gate);
}

struct Swiglu : Function<Swiglu> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& gate, const at::Tensor& up) {
    context->save_for_backward({gate, up});
    return have_kernels(gate) ? kernels::swiglu(gate, up) : at::silu(gate) * up;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &gate = saved[0], &up = saved[1], gradient = gradients[0].contiguous();
    if (have_kernels(gate)) {
      const kernels::SwigluGradient made = kernels::swiglu_gradient(gradient, gate, up);
      return {made.gate, made.up};
    }
    return {at::silu_backward(gradient * up, gate), gradient * at::silu(gate)};
  }
};

}  // namespace

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  return Swiglu::apply(gate.contiguous(), up.contiguous());
}

}  // namespace bulkhead
