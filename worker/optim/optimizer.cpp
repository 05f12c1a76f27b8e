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

constexpr const char* kStepName = "step";
constexpr const char* kSecondName = "exp_avg_sq.";

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

// `mine`: what a tensor of the state must be like.
Status check_fits(const std::string& name, const at::Tensor& mine, const at::Tensor* other) {
  if (other == nullptr) return Error{ErrorCode::kMismatch, "the optimizer state has no tensor " + name};
  if (other->sizes() != mine.sizes() || other->scalar_type() != mine.scalar_type()) {
    return Error{ErrorCode::kMismatch, "the optimizer state's " + name + " is " + shape_of(*other) +
                                           ", but this model needs " + shape_of(mine)};
  }
  return ok_status();
}

}  // namespace

Optimizer::Optimizer(const std::vector<NamedTensor>& parameters, OptimizerConfig config,
                     const std::vector<NamedTensor>& copies, const RankPlace& place)
    : config_(std::move(config)) {
  CHECK(config_.type == "adamw" || config_.type == "sgd", config_.type);
  const c10::NoGradGuard no_grad;
  decayed_.weight_decay = config_.weight_decay;
  for (const NamedTensor& parameter : parameters) {
    if (parameter.value.requires_grad()) parameters_.push_back(parameter.value);
  }
  CHECK(!parameters_.empty());
  if (config_.sharded && place.ranks > 1) shares_.emplace(parameters_, place);
  step_ = at::zeros({}, parameters_[0].options().dtype(at::kFloat).requires_grad(false));
  std::size_t place_of = 0;
  for (const NamedTensor& parameter : parameters) {
    if (!parameter.value.requires_grad()) continue;
    add(parameter.value.dim() >= 2 ? decayed_ : undecayed_, parameter, place_of++);
    if (const at::Tensor* copy = find_tensor(copies, parameter.name)) {
      copied_.push_back(parameter.value.detach());
      copies_.push_back(*copy);
    }
  }
  if (config_.type == "adamw" && !shares_) fuse();
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

void Optimizer::add(Group& group, const NamedTensor& parameter, std::size_t place) {
  const Share share = shares_ ? shares_->own()[place] : Share{0, parameter.value.numel()};
  group.places.push_back(place);
  group.names.push_back(parameter.name);
  group.parameters.push_back(parameter.value);
  group.shares.push_back(share);
  const at::Tensor own =
      shares_ ? parameter.value.detach().view(-1).narrow(0, share.begin, share.count) : parameter.value;
  group.own.push_back(own);
  if (config_.type == "adamw" || config_.momentum != 0) group.first.push_back(at::zeros_like(own));
  if (config_.type == "adamw") {
    group.second.push_back(at::zeros_like(own));
    group.steps.push_back(step_);
  }
}

std::vector<at::Tensor> Optimizer::own_gradients(const Group& group) const {
  std::vector<at::Tensor> gradients = gradients_of(group.parameters);
  for (std::size_t i = 0; shares_ && i < gradients.size(); ++i)
    gradients[i] = gradients[i].reshape(-1).narrow(0, group.shares[i].begin, group.shares[i].count);
  return gradients;
}

void Optimizer::scale_gradients(double factor) {
  const c10::NoGradGuard no_grad;
  at::_foreach_mul_(gradients_of(parameters_), factor);
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
    if (!shares_) refresh_copies();
  });
}

Status Optimizer::exchange(Communicator& communicator) {
  if (!shares_) return ok_status();
  if (Status done = shares_->exchange(communicator); !done) return done;
  return catching("the optimizer step", ErrorCode::kFailed, [&] { refresh_copies(); });
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
  at::_fused_adamw_(group.own, own_gradients(group), group.first, group.second,
                    /*max_exp_avg_sqs=*/{}, group.steps, lr, config_.beta1, config_.beta2, group.weight_decay,
                    config_.eps, /*amsgrad=*/false, /*maximize=*/false);
}

void Optimizer::step_sgd(Group& group, double lr) {
  // Momentum starts at zero, so the first step needs no case of its own.
  at::_fused_sgd_(group.own, own_gradients(group), group.first, group.weight_decay, config_.momentum, lr,
                  /*dampening=*/0, /*nesterov=*/false, /*maximize=*/false,
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

void Optimizer::for_each_moment(const std::function<void(const Moment&)>& visit) const {
  const std::string first = config_.type == "adamw" ? "exp_avg." : "momentum.";
  for (const Group* group : {&decayed_, &undecayed_}) {
    for (std::size_t i = 0; i < group->names.size(); ++i) {
      const auto place = [&](const at::Tensor& value, const std::string& prefix, bool is_second) {
        visit({prefix + group->names[i], value, group, i, group->places[i], is_second});
      };
      if (!group->first.empty()) place(group->first[i], first, false);
      if (!group->second.empty()) place(group->second[i], kSecondName, true);
    }
  }
}

std::vector<NamedTensor> Optimizer::state() const {
  CHECK(!shares_);
  std::vector<NamedTensor> state{{kStepName, at::scalar_tensor(steps_, at::kLong)}};
  for_each_moment([&](const Moment& moment) { state.push_back({moment.name, moment.value}); });
  return state;
}

Result<std::vector<NamedTensor>> Optimizer::whole_state(Communicator& communicator) const {
  if (!shares_) return state();
  std::vector<NamedTensor> whole{{kStepName, at::scalar_tensor(steps_, at::kLong)}};
  for (const bool second : {false, true}) {
    at::Tensor buffer = shares_->empty_buffer();
    for_each_moment([&](const Moment& moment) {
      if (moment.is_second != second) return;
      const Share& share = moment.group->shares[moment.index];
      shares_->view(buffer, moment.place).view(-1).narrow(0, share.begin, share.count).copy_(moment.value);
    });
    if (Status done = shares_->exchange(buffer, communicator); !done) return done.error();
    buffer = buffer.to(at::kCPU);
    for_each_moment([&](const Moment& moment) {
      if (moment.is_second == second) whole.push_back({moment.name, shares_->view(buffer, moment.place)});
    });
  }
  return whole;
}

Status Optimizer::load_state(const std::vector<NamedTensor>& state) {
  std::vector<std::string> known{kStepName};
  Status fits = check_fits(kStepName, at::scalar_tensor(steps_, at::kLong), find_tensor(state, kStepName));
  for_each_moment([&](const Moment& moment) {
    known.push_back(moment.name);
    if (fits)
      fits = check_fits(moment.name, moment.group->parameters[moment.index], find_tensor(state, moment.name));
  });
  if (!fits) return fits;
  for (const NamedTensor& tensor : state) {
    if (std::find(known.begin(), known.end(), tensor.name) == known.end()) {
      return Error{ErrorCode::kMismatch,
                   "the optimizer state has a tensor that this run does not know: " + tensor.name};
    }
  }
  return catching("loading the optimizer state", ErrorCode::kFailed, [&] {
    const c10::NoGradGuard no_grad;
    for_each_moment([&](const Moment& moment) {
      const at::Tensor& saved = tensor_named(state, moment.name);
      const Share& share = moment.group->shares[moment.index];
      at::Tensor value = moment.value;
      value.copy_(shares_ ? saved.reshape(-1).narrow(0, share.begin, share.count) : saved);
    });
    steps_ = tensor_named(state, kStepName).item<std::int64_t>();
    step_.fill_(static_cast<double>(steps_));
  });
}

}  // namespace bulkhead
