#include "ops/rotary.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ops/llama_kernels.h"

namespace bulkhead {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// Dense heads, whose rows begin on multiples of 16 bytes.
bool have_kernels(const at::Tensor& x) {
  const bool aligned =
      x.stride(3) == 1 && x.stride(0) % 8 == 0 && x.stride(1) % 8 == 0 && x.stride(2) % 8 == 0;
  return x.scalar_type() == at::kBFloat16 && x.size(3) % 16 == 0 && aligned && kernels::serve(x);
}

at::Tensor turned(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, bool backwards) {
  const std::int64_t length = x.size(1), half = x.size(3) / 2;
  if (have_kernels(x)) return kernels::rotary(x, cos, sin, backwards);
  const at::Tensor c = cos.narrow(0, 0, length).unsqueeze(1), s = sin.narrow(0, 0, length).unsqueeze(1);
  const at::Tensor wide = x.to(c10::promoteTypes(x.scalar_type(), at::kFloat));
  const at::Tensor a = wide.narrow(3, 0, half), b = wide.narrow(3, half, half);
  const at::Tensor crossed = backwards ? at::cat({b * s, -(a * s)}, 3) : at::cat({-(b * s), a * s}, 3);
  return (at::cat({a * c, b * c}, 3) + crossed).to(x.scalar_type());
}

struct Rotate : Function<Rotate> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& cos,
                            const at::Tensor& sin) {
    context->save_for_backward({cos, sin});
    return turned(x, cos, sin, /*backwards=*/false);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    return {turned(gradients[0], saved[0], saved[1], /*backwards=*/true), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor rotary(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  return Rotate::apply(x, cos, sin);
}

}  // namespace bulkhead
