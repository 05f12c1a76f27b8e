// Steps on a GPU as one launch: recorded from an ordinary step, and replayed.
#include <algorithm>
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

bool TrainingLoop::is_recorded(const std::vector<Taken>& taken) const {
  bool same = recorded_ && recorded_->inputs.size() == taken.size();
  for (std::size_t i = 0; same && i < taken.size(); ++i)
    same = !taken[i].skip && fits(recorded_->inputs[i], taken[i].batch);
  return same;
}

// Whether the passes are queued: not where a batch is skipped, nor where they
// could not be recorded; then nothing has happened, and this run no longer tries.
Result<bool> TrainingLoop::replay(const std::vector<Taken>& taken) {
  if (std::any_of(taken.begin(), taken.end(), [](const Taken& one) { return one.skip; })) return false;
  if (!is_recorded(taken)) {
    if (Status done = record(taken); !done) {
      spdlog::warn("steps are queued kernel by kernel: {}", done.error().message);
      recorded_.reset();
      queued_steps_ = std::numeric_limits<std::int64_t>::min();
      return false;
    }
  }
  if (Status done = launch(state_.step, taken); !done) return done.error();
  count_replayed();
  return true;
}

// The staging of two steps ago has been read: that step's numbers have come.
Status TrainingLoop::launch(std::int64_t step, const std::vector<Taken>& taken) {
  auto& staged = recorded_->staged[step % 2];
  for (std::size_t i = 0; i < taken.size(); ++i) {
    for (std::size_t tensor = 0; tensor < taken[i].batch.size(); ++tensor) {
      const at::Tensor& value = taken[i].batch[tensor].value;
      at::Tensor& input = recorded_->inputs[i][tensor].value;
      if (!value.is_cuda()) staged[i][tensor].value.copy_(value);
      input.copy_(value.is_cuda() ? value : staged[i][tensor].value, /*non_blocking=*/true);
    }
  }
  return recorded_->passes.replay();
}

void TrainingLoop::count_replayed() {
  numbers_.put(recorded_->losses);
  micros_ = recorded_->micros;
  state_.trained += static_cast<std::int64_t>(micros_.size());
}

Result<at::Tensor> TrainingLoop::replay_update(double lr, double max_norm) {
  parts_.optimizer.prepare_step(lr, max_norm);
  if (Status done = recorded_->update.replay(); !done) return done.error();
  return recorded_->norm;
}

// Every rank's answer to may_go_ahead(), since a rank whose next step does not come
// would leave the others' sums waiting.  Asked of all where any could say yes.
Result<bool> TrainingLoop::all_may_go_ahead(bool replayed, const RankReport& report) {
  const bool own = replayed && may_go_ahead(report);
  if (parts_.communicator->is_solo() || !why_not_recorded().empty()) return own;
  Result<std::vector<std::string>> answers = parts_.communicator->all_gather(own ? "yes" : "no");
  if (!answers) return answers.error();
  return std::all_of(answers->begin(), answers->end(),
                     [](const std::string& answer) { return answer == "yes"; });
}

// Whether all that the next step's passes depend on is known before this step's
// numbers are: then the device need not wait for the host between the two.  What
// the boundary between them does must not change what comes.  The weights stand
// still meanwhile, as plugins may ask for them: the next update is queued when
// their replies are there.
bool TrainingLoop::may_go_ahead(const RankReport& report) const {
  if (!recorded_ || !why_not_recorded().empty()) return false;
  if (!prefetch_.empty() && prefetch_.back() == 0) return false;  // its batch comes after this step's end
  const Agreement agreement = agree({report});
  const Control& control = agreement.control;
  const bool ends = !agreement.abort.empty() || !agreement.fatal.empty() || !agreement.interrupt.empty() ||
                    control.stop || control.stop_epoch;
  if (ends || control.save || control.validate || !control.settings.empty()) return false;
  if (!agreement.given_up.empty() || agreement.weights_root >= 0) return false;
  const std::int64_t next = state_.step + 1;
  if (next >= epoch_end_step() || plan_.accumulate_of(next) != plan_.accumulate_of(state_.step)) return false;
  const auto due = [next](std::int64_t every) { return every > 0 && next % every == 0; };
  return !due(validate_every()) && !due(save_every());
}

// Queues the next step's passes.  What its batches' plugins said counts in its own exchange.
Status TrainingLoop::go_ahead() {
  const std::int64_t next = state_.step + 1;
  for (std::int64_t micro = 0; micro < plan_.accumulate_of(next); ++micro) {
    Result<Taken> taken = take_batch(next, micro, carried_);
    if (!taken) return taken.error();
    taken_ahead_.push_back(std::move(*taken));
  }
  if (!is_recorded(taken_ahead_)) return ok_status();
  if (Status done = launch(next, taken_ahead_); !done) return done;
  launched_ahead_ = true;
  taken_ahead_.clear();
  return ok_status();
}

Status TrainingLoop::record(const std::vector<Taken>& taken) {
  recorded_.emplace();
  for (const Taken& one : taken) {
    const auto room = [&one](const at::TensorOptions& where) {
      TensorBatch batch;
      for (const NamedTensor& tensor : one.batch)
        batch.push_back(
            {tensor.name, at::empty(tensor.value.sizes(), where.dtype(tensor.value.scalar_type()))});
      return batch;
    };
    recorded_->inputs.push_back(room(at::TensorOptions(parts_.device)));
    for (auto& staged : recorded_->staged) staged.push_back(room(at::TensorOptions().pinned_memory(true)));
  }
  const std::int64_t trained = state_.trained;
  Status recorded = recorded_->passes.record([&]() -> Status {
    parts_.reducer.start_step();
    for (std::size_t i = 0; i < taken.size(); ++i) {
      const Taken one{recorded_->inputs[i], false};
      if (Status done = run_micro_batch(static_cast<std::int64_t>(i), one); !done) return done;
    }
    Result<double> weight = parts_.reducer.finish();
    if (!weight) return weight.error();
    recorded_->losses = numbers_.take();
    return ok_status();
  });
  // Nothing has been trained by that.
  state_.trained = trained;
  recorded_->micros = std::exchange(micros_, {});
  if (recorded) {
    recorded = recorded_->update.record([&]() -> Status {
      Result<at::Tensor> norm = parts_.optimizer.queue_step();
      if (!norm) return norm.error();
      recorded_->norm = *norm;
      return ok_status();
    });
  }
  if (!recorded) numbers_.forget();
  return recorded;
}

}  // namespace bulkhead
