#include "ops/head_loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ne.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ops/gradient_sum.h"
#include "ops/kernels.h"

namespace bulkhead {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

constexpr std::int64_t kEight = 8;  // bfloat16 numbers that a kernel loads at once

bool have_kernels(const at::Tensor& x, const at::Tensor& weight) {
  return x.scalar_type() == at::kBFloat16 && kernels::serve(x) && kernels::serve(weight);
}

// [rows,classes], each row beginning on a multiple of 16 bytes.
at::Tensor padded_scores(const at::Tensor& x, const at::Tensor& weight) {
  const std::int64_t classes = weight.size(0);
  const std::int64_t stride = (classes + kEight - 1) / kEight * kEight;
  const at::Tensor scores = at::empty({x.size(0), stride}, x.options()).narrow(1, 0, classes);
  return kernels::product(x, weight, {}, scores);
}

kernels::RowLosses reference(const at::Tensor& scores, const at::Tensor& labels, double scale,
                             bool with_gradient) {
  const at::Tensor counts = labels.ne(-100);
  const at::Tensor places = labels.clamp_min(0).unsqueeze(1);
  at::Tensor logs = at::log_softmax(scores, 1, at::kFloat);
  kernels::RowLosses made{logs.gather(1, places).squeeze(1).neg().mul(counts), scores.argmax(-1).eq(labels)};
  if (with_gradient) {
    logs.exp_();
    logs.scatter_add_(1, places, at::full_like(places, -1, logs.options()));
    scores.copy_(logs.mul_(counts.unsqueeze(1)).mul_(scale));
  }
  return made;
}

struct Head : Function<Head> {
  static variable_list forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                               const at::Tensor& working, const at::Tensor& labels, std::int64_t count,
                               bool with_gradient) {
    const double scale = 1.0 / static_cast<double>(count);
    const bool fast = have_kernels(x, working);
    const at::Tensor scores = fast ? padded_scores(x, working) : at::linear(x, working);
    const kernels::RowLosses rows = fast ? kernels::cross_entropy(scores, labels, scale, with_gradient)
                                         : reference(scores, labels, scale, with_gradient);
    const at::Tensor correct = rows.correct.sum();
    context->mark_non_differentiable({correct});
    if (with_gradient) context->save_for_backward({x, weight, working, scores});
    return {rows.losses.sum() * scale, correct};
  }

  // By now `scores` hold their gradient, for a loss whose own is 1.
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &working = saved[2], &scores = saved[3];
    const at::Tensor& factor = gradients[0];
    const bool fast = have_kernels(x, working);
    const at::Tensor at_x = fast ? kernels::input_gradient(scores, working) : at::mm(scores, working);
    const GradientSum to = fast ? gradient_to_write(saved[1]) : gradient_sum(saved[1]);
    if (to.sum.defined()) {
      const at::Tensor scaled = x * factor.to(x.scalar_type());
      if (fast) {
        kernels::add_weight_gradient(to.sum, scores, scaled, to.fresh);
      } else {
        to.sum.add_(at::mm(scores.t(), scaled));
      }
    }
    return {at_x * factor.to(x.scalar_type()),
            to.returned,
            at::Tensor(),
            at::Tensor(),
            at::Tensor(),
            at::Tensor()};
  }
};

}  // namespace

HeadLoss head_loss(const at::Tensor& x, const Factor& weight, const at::Tensor& labels, std::int64_t count) {
  const bool with_gradient =
      at::GradMode::is_enabled() && (x.requires_grad() || weight.parameter.requires_grad());
  const auto made = Head::apply(x, weight.parameter, weight.working, labels, count, with_gradient);
  return {made[0], made[1]};
}

}  // namespace bulkhead
