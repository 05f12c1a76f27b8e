// Where the training loop stands still: validations and checkpoints.
#include <algorithm>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/nn/module.h>

#include "protocol/log.h"
#include "run_checkpoint.h"
#include "training_loop.h"

namespace bulkhead {

Status TrainingLoop::validate() {
  if (parts_.dataset.validation_size() == 0 || validated_at_ == state_.step) return ok_status();
  validated_at_ = state_.step;
  if (Status done = waited("on_validate_start"); !done) return done;

  RankReport sums;
  {
    const at::NoGradGuard no_grad;
    parts_.model.module->eval();
    const ValidationSampler sampler(parts_.sampler_options(parts_.dataset.validation_size()));
    const std::int64_t limit = parts_.config.train.validate_batches;
    const std::int64_t batches = limit > 0 ? std::min(limit, sampler.batches()) : sampler.batches();
    for (std::int64_t i = 0; i < batches; ++i) {
      const TensorBatch batch = parts_.dataset.gather(Split::kValidation, sampler.indices(i));
      const Losses losses = parts_.model.forward(to_device(batch, parts_.device));
      const auto count = static_cast<double>(losses.count);
      const double loss = losses.loss.item<double>();
      const double correct = losses.correct.item<double>();
      sums.loss_sum += loss * count;  // by labels: a short last batch weighs less
      sums.weight += count;
      sums.correct += correct;
      sums.labels += count;
      if (plugins_.has("on_validate_step_end")) {
        take_over(plugins_.call("on_validate_step_end",
                                context_with({{"loss", loss}, {"accuracy", correct / count}})),
                  sums);
      }
    }
    parts_.model.module->train();
  }
  Result<Agreement> agreement = exchange(sums);
  if (!agreement) return agreement.error();
  validation_metrics_ = {{"loss", agreement->loss}, {"accuracy", agreement->accuracy}};
  validation_ = Value(validation_metrics_);
  if (!state_.best_metric || agreement->loss < *state_.best_metric) state_.best_metric = agreement->loss;
  if (parts_.facts.is_main) outlets_.metrics({{"step", state_.step}, {"validation", *validation_}});
  if (Status done = apply(*agreement, "on_validate_step_end"); !done) return done;
  const Status done = waited("on_validate_end");
  validation_metrics_.clear();
  return done;
}

Status TrainingLoop::save() {
  if (Status done = waited("on_save_start"); !done) return done;
  RankState rank;
  Collected collected;
  rank.plugin_states = plugins_.snapshot(context_with({}), collected);
  take_over(collected, carried_);
  rank.batches = plugins_.pending_batches();
  rank.plugin_seqs = plugins_.last_seqs();
  rank.training = state_;
  rank.training.carried = carried_;
  const Status written = write_run_checkpoint(
      parts_.facts.run_dir + "/checkpoints", parts_.config.checkpoint.keep, *parts_.communicator,
      named_parameters(parts_.model), parts_.optimizer, rank, parts_.config.model.type);
  if (!written) {
    // A full disk must not end a run; a lost rank shows at the next collective.
    if (written.error().code == ErrorCode::kUnavailable) return written;
    outlets_.event("save", {{"step", state_.step}, {"reason", written.error().message}, {"failed", true}});
    spdlog::error("no checkpoint at step {}: {}", state_.step, written.error().message);
  } else if (parts_.facts.is_main) {
    outlets_.event("save", {{"step", state_.step}});
  }
  saved_at_ = state_.step;
  return waited("on_save_end");
}

}  // namespace bulkhead
