#include "models/recompute.h"

#include <optional>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/core/ivalue.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

namespace bulkhead {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;
using Part = std::function<void(Residual&)>;

// What backward needs beside the saved tensors.
struct HeldPart : torch::CustomClassHolder {
  HeldPart(Part held, const Residual& residual) : part(std::move(held)), around(residual) {
    around.stream.reset();
    around.branch.reset();
  }
  Residual through(const at::Tensor& stream, const at::Tensor& branch) const {
    Residual residual = around;
    residual.stream = stream;
    residual.branch = branch;
    part(residual);
    return residual;
  }
  Part part;
  Residual around;  // whatever a residual has besides
};
using Held = c10::intrusive_ptr<HeldPart>;

// As an input of the pass that is made in backward.
at::Tensor as_leaf(const at::Tensor& saved) {
  return saved.defined() ? saved.detach().requires_grad_(saved.requires_grad()) : saved;
}

struct Recomputed : Function<Recomputed> {
  static variable_list forward(AutogradContext* context, const at::Tensor& stream,
                               const std::optional<at::Tensor>& branch, const Held& held, Residual* made) {
    context->set_materialize_grads(false);
    context->save_for_backward({stream, branch.value_or(at::Tensor())});
    context->saved_data["part"] = c10::IValue::make_capsule(held);
    *made = held->through(stream, branch.value_or(at::Tensor()));
    return {made->stream, made->branch};
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const auto held = c10::static_intrusive_pointer_cast<HeldPart>(context->saved_data["part"].toCapsule());
    const at::Tensor stream = as_leaf(saved[0]), branch = as_leaf(saved[1]);
    const at::AutoGradMode with_gradients(true);
    const Residual made = held->through(stream, branch);
    variable_list roots, at_roots;
    for (const auto& [root, gradient] :
         {std::pair{made.stream, gradients[0]}, std::pair{made.branch, gradients[1]}}) {
      if (!gradient.defined() || !root.requires_grad()) continue;
      roots.push_back(root);
      at_roots.push_back(gradient);
    }
    if (!roots.empty()) torch::autograd::backward(roots, at_roots);
    return {stream.grad(), branch.defined() ? branch.grad() : at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

void recomputed(Residual& residual, Part part) {
  if (!at::GradMode::is_enabled()) return part(residual);
  const auto branch = residual.branch.defined() ? std::optional(residual.branch) : std::nullopt;
  Residual made;
  const auto outputs = Recomputed::apply(residual.stream, branch,
                                         c10::make_intrusive<HeldPart>(std::move(part), residual), &made);
  residual = std::move(made);
  residual.stream = outputs[0];
  residual.branch = outputs[1];
}

}  // namespace bulkhead
