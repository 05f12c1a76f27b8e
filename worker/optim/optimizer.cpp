#include "optim/optimizer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include <ATen/core/Tensor.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include "torch_error.h"

namespace bulkhead {
namespace {

// As torch.nn.utils.clip_grad_norm_.
constexpr double kClipEpsilon = 1e-6;

std::vector<at::Tensor> gradients_of(const std::vector<at::Tensor>& parameters) {
  std::vector<at::Tensor> gradients;
  gradients.reserve(parameters.size());
  for (const at::Tensor& parameter : parameters) {
    CHECK(parameter.grad().defined());
    gradients.push_back(parameter.grad());
  }
  return gradients;
}

std::string shape_of(const at::Tensor& tensor) {
  std::string text = std::string(c10::toString(tensor.scalar_type())) + "[";
  for (std::int64_t i = 0; i < tensor.dim(); ++i)
    text += (i == 0 ? "" : ",") + std::to_string(tensor.size(i));
  return text + "]";
}

Status check_fits(const NamedTensor& mine, const at::Tensor* other) {
  if (other == nullptr) {
    return Error{ErrorCode::kMismatch, "the optimizer state has no tensor " + mine.name};
  }
  if (other->sizes() != mine.value.sizes() || other->scalar_type() != mine.value.scalar_type()) {
    return Error{ErrorCode::kMismatch, "the optimizer state's " + mine.name + " is " + shape_of(*other) +
                                           ", but this model needs " + shape_of(mine.value)};
  }
  return ok_status();
}

}  // namespace

Optimizer::Optimizer(const std::vector<NamedTensor>& parameters, OptimizerConfig config,
                     const std::vector<NamedTensor>& copies)
    : config_(std::move(config)) {
  CHECK(config_.type == "adamw" || config_.type == "sgd", config_.type);
  const c10::NoGradGuard no_grad;
  decayed_.weight_decay = config_.weight_decay;
  for (const NamedTensor& parameter : parameters) {
    if (!parameter.value.requires_grad()) continue;
    if (!step_.defined()) step_ = at::zeros({}, parameter.value.options().dtype(at::kFloat));
    parameters_.push_back(parameter.value);
    add(parameter.value.dim() >= 2 ? decayed_ : undecayed_, parameter);
    if (const at::Tensor* copy = find_tensor(copies, parameter.name)) {
      copied_.push_back(parameter.value.detach());
      copies_.push_back(*copy);
    }
  }
  CHECK(!parameters_.empty());
  if (config_.type == "adamw") fuse();
}

// Where all of it is float32 on a GPU that has kernels.
void Optimizer::fuse() {
  std::vector<kernels::Adamw::Item> items;
  for (const Group* group : {&decayed_, &undecayed_}) {
    for (std::size_t i = 0; i < group->parameters.size(); ++i) {
      const at::Tensor parameter = group->parameters[i].detach();
      const bool fits = parameter.is_contiguous() && parameter.scalar_type() == at::kFloat;
      if (!fits || !kernels::has_gpu(parameter)) return;
      kernels::Adamw::Item item{parameter, group->first[i], group->second[i], {}, group->weight_decay};
      for (std::size_t c = 0; c < copies_.size(); ++c) {
        if (!copied_[c].is_same(parameter) && copied_[c].const_data_ptr() != parameter.const_data_ptr())
          continue;
        if (copies_[c].scalar_type() != at::kBFloat16 || !copies_[c].is_contiguous()) return;
        item.copy = copies_[c];
      }
      items.push_back(std::move(item));
      fused_order_.push_back(group->parameters[i]);
    }
  }
  fused_.emplace(std::move(items));
}

void Optimizer::add(Group& group, const NamedTensor& parameter) {
  group.names.push_back(parameter.name);
  group.parameters.push_back(parameter.value);
  if (config_.type == "adamw" || config_.momentum != 0)
    group.first.push_back(at::zeros_like(parameter.value));
  if (config_.type == "adamw") {
    group.second.push_back(at::zeros_like(parameter.value));
    group.steps.push_back(step_);
  }
}

double Optimizer::clip_grad_norm(double max_norm) {
  const c10::NoGradGuard no_grad;
  const std::vector<at::Tensor> gradients = gradients_of(parameters_);
  const std::vector<at::Tensor> norms = at::_foreach_norm(gradients, 2);
  const double norm = at::stack(norms).to(at::kDouble).norm().item<double>();
  if (max_norm > 0 && std::isfinite(norm)) {
    const double factor = max_norm / (norm + kClipEpsilon);
    if (factor < 1) at::_foreach_mul_(gradients, factor);
  }
  return norm;
}

Status Optimizer::step(double lr) {
  return catching("the optimizer step", ErrorCode::kFailed, [&] {
    const c10::NoGradGuard no_grad;
    ++steps_;
    step_.fill_(static_cast<double>(steps_));
    for (Group* group : {&decayed_, &undecayed_}) {
      if (group->parameters.empty()) continue;
      config_.type == "adamw" ? step_adamw(*group, lr) : step_sgd(*group, lr);
    }
    refresh_copies();
  });
}

Result<at::Tensor> Optimizer::clip_and_step(double lr, double max_norm) {
  if (!fused_) {
    const double norm = clip_grad_norm(max_norm);
    if (Status done = step(lr); !done) return done.error();
    return at::scalar_tensor(norm, at::kDouble);
  }
  return catching("the optimizer step", ErrorCode::kFailed, [&]() -> Result<at::Tensor> {
    prepare_step(lr, max_norm);
    return queue_step();
  });
}

void Optimizer::prepare_step(double lr, double max_norm) {
  ++steps_;
  fused_->prepare({lr, config_.beta1, config_.beta2, config_.eps, steps_, max_norm});
}

Result<at::Tensor> Optimizer::queue_step() {
  return catching("the optimizer step", ErrorCode::kFailed, [&]() -> Result<at::Tensor> {
    const c10::NoGradGuard no_grad;
    return fused_->update(gradients_of(fused_order_));
  });
}

void Optimizer::refresh_copies() {
  const c10::NoGradGuard no_grad;
  if (!copies_.empty()) at::_foreach_copy_(copies_, copied_);
}

void Optimizer::step_adamw(Group& group, double lr) {
  at::_fused_adamw_(group.parameters, gradients_of(group.parameters), group.first, group.second,
                    /*max_exp_avg_sqs=*/{}, group.steps, lr, config_.beta1, config_.beta2, group.weight_decay,
                    config_.eps, /*amsgrad=*/false, /*maximize=*/false);
}

void Optimizer::step_sgd(Group& group, double lr) {
  // Momentum starts at zero, so the first step needs no case of its own.
  at::_fused_sgd_(group.parameters, gradients_of(group.parameters), group.first, group.weight_decay,
                  config_.momentum, lr, /*dampening=*/0, /*nesterov=*/false, /*maximize=*/false,
                  /*is_first_step=*/false);
}

void Optimizer::forget(const std::vector<std::string>& parameters) {
  const c10::NoGradGuard no_grad;
  for (Group* group : {&decayed_, &undecayed_}) {
    for (std::size_t i = 0; i < group->names.size(); ++i) {
      if (std::find(parameters.begin(), parameters.end(), group->names[i]) == parameters.end()) continue;
      if (!group->first.empty()) group->first[i].zero_();
      if (!group->second.empty()) group->second[i].zero_();
    }
  }
}

std::int64_t Optimizer::steps() const { return steps_; }

std::vector<NamedTensor> Optimizer::state() const {
  std::vector<NamedTensor> state{{"step", at::scalar_tensor(steps_, at::kLong)}};
  const std::string first = config_.type == "adamw" ? "exp_avg." : "momentum.";
  for (const Group* group : {&decayed_, &undecayed_}) {
    for (std::size_t i = 0; i < group->names.size(); ++i) {
      if (!group->first.empty()) state.push_back({first + group->names[i], group->first[i]});
      if (!group->second.empty()) state.push_back({"exp_avg_sq." + group->names[i], group->second[i]});
    }
  }
  return state;
}

Status Optimizer::load_state(const std::vector<NamedTensor>& state) {
  const std::vector<NamedTensor> mine = this->state();
  for (const NamedTensor& tensor : mine) {
    if (auto fits = check_fits(tensor, find_tensor(state, tensor.name)); !fits) return fits;
  }
  for (const NamedTensor& tensor : state) {
    if (find_tensor(mine, tensor.name) == nullptr) {
      return Error{ErrorCode::kMismatch,
                   "the optimizer state has a tensor that this run does not know: " + tensor.name};
    }
  }
  return catching("loading the optimizer state", ErrorCode::kFailed, [&] {
    const c10::NoGradGuard no_grad;
    for (const NamedTensor& tensor : mine) {
      if (tensor.name != "step") tensor.value.copy_(tensor_named(state, tensor.name));
    }
    steps_ = tensor_named(state, "step").item<std::int64_t>();
    step_.fill_(static_cast<double>(steps_));
  });
}

}  // namespace bulkhead
