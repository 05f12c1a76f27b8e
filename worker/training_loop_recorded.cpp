// Steps on a GPU as one launch: recorded from an ordinary step, and replayed.
#include <limits>
#include <utility>

#include <ATen/ATen.h>

#include "protocol/log.h"
#include "training_loop.h"

namespace bulkhead {
namespace {

// Ordinary steps before one is recorded: in them libraries choose their ways,
// gradients get their lasting places, and all memory is had.
constexpr std::int64_t kWarmUpSteps = 3;

bool fits(const TensorBatch& input, const TensorBatch& batch) {
  if (input.size() != batch.size()) return false;
  for (std::size_t i = 0; i < input.size(); ++i) {
    const bool same = input[i].name == batch[i].name && input[i].value.sizes() == batch[i].value.sizes() &&
                      input[i].value.scalar_type() == batch[i].value.scalar_type();
    if (!same) return false;
  }
  return true;
}

}  // namespace

// Empty where steps may be recorded.
std::string TrainingLoop::why_not_recorded() const {
  if (!StepGraph::is_possible()) return "this build has no CUDA";
  if (parts_.facts.world_size > 1) return "there are several ranks";
  if (!parts_.optimizer.is_fused()) return "the optimizer's update is not one kernel";
  if (parts_.data_facts.kind == DataKind::kRows) return "its batches differ in length";
  for (const char* hook : {"on_backward_end", "on_substep_end", "on_optimizer_step_start"}) {
    if (plugins_.has(hook)) return std::string("a plugin listens to ") + hook;
  }
  return {};
}

bool TrainingLoop::may_replay() {
  if (!parts_.device.is_cuda()) return false;
  const std::string why = why_not_recorded();
  if (told_why_ != why) {
    spdlog::info(
        "{}", why.empty() ? "steps are recorded and replayed" : "steps are queued kernel by kernel: " + why);
    told_why_ = why;
    queued_steps_ = 0;
    recorded_.reset();
  }
  return why.empty() && queued_steps_ >= kWarmUpSteps;
}

// Afterwards recorded_ says whether the step was done; if it could not be
// recorded, nothing has happened, and this run no longer tries.
Status TrainingLoop::replay(const std::vector<Taken>& taken) {
  bool same = recorded_ && recorded_->inputs.size() == taken.size();
  for (std::size_t i = 0; same && i < taken.size(); ++i) same = fits(recorded_->inputs[i], taken[i].batch);
  if (!same) {
    if (Status done = record(taken); !done) {
      spdlog::warn("steps are queued kernel by kernel: {}", done.error().message);
      recorded_.reset();
      queued_steps_ = std::numeric_limits<std::int64_t>::min();
      return ok_status();
    }
  }
  for (std::size_t i = 0; i < taken.size(); ++i) {
    for (std::size_t tensor = 0; tensor < taken[i].batch.size(); ++tensor)
      recorded_->inputs[i][tensor].value.copy_(taken[i].batch[tensor].value, /*non_blocking=*/true);
  }
  parts_.optimizer.prepare_step(lr(), parts_.config.optimizer.grad_clip);
  if (Status done = recorded_->graph.replay(); !done) return done;
  numbers_.put(recorded_->numbers);
  micros_ = recorded_->micros;
  state_.trained += static_cast<std::int64_t>(taken.size());
  return ok_status();
}

Status TrainingLoop::record(const std::vector<Taken>& taken) {
  recorded_.emplace();
  for (const Taken& one : taken) {
    TensorBatch& input = recorded_->inputs.emplace_back();
    for (const NamedTensor& tensor : one.batch)
      input.push_back(
          {tensor.name, at::empty_like(tensor.value, tensor.value.options().device(parts_.device))});
  }
  const std::int64_t trained = state_.trained;
  const Status recorded = recorded_->graph.record([&]() -> Status {
    parts_.reducer.start_step();
    for (std::size_t i = 0; i < taken.size(); ++i) {
      const Taken one{recorded_->inputs[i], false};
      if (Status done = run_micro_batch(static_cast<std::int64_t>(i), one); !done) return done;
    }
    Result<double> weight = parts_.reducer.finish();
    if (!weight) return weight.error();
    Result<at::Tensor> norm = parts_.optimizer.queue_step();
    if (!norm) return norm.error();
    numbers_.add(*norm);
    recorded_->numbers = numbers_.take();
    return ok_status();
  });
  // Nothing has been trained by that.
  state_.trained = trained;
  recorded_->micros = std::exchange(micros_, {});
  if (!recorded) numbers_.forget();
  return recorded;
}

}  // namespace bulkhead
