// Validations and the test: a split gone through once, in order, without
// gradients, every rank its share.
#include <algorithm>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/nn/module.h>

#include "training_loop.h"

namespace bulkhead {

// What is gone through, and by which hooks.
struct TrainingLoop::Evaluation {
  Phase phase;
  Split split;
  const char* step_end;
  ValidationSampler sampler;
  std::int64_t own = 0;  // batches of this rank
  std::int64_t all = 0;  // of the rank that has most: the others pass
};

TrainingLoop::Evaluation TrainingLoop::evaluation(Phase phase) const {
  const bool test = phase == Phase::kTest;
  const Split split = test ? Split::kTest : Split::kValidation;
  SamplerOptions options = parts_.sampler_options(parts_.dataset->size(split));
  Evaluation evaluation{phase, split, test ? "on_test_step_end" : "on_validate_step_end",
                        ValidationSampler(options)};
  options.rank = 0;
  const std::int64_t limit = test ? 0 : parts_.config.train.validate_batches;
  const auto limited = [limit](std::int64_t batches) {
    return limit > 0 ? std::min(limit, batches) : batches;
  };
  evaluation.own = limited(evaluation.sampler.batches());
  evaluation.all = limited(ValidationSampler(options).batches());
  return evaluation;
}

Status TrainingLoop::validate() {
  if (parts_.dataset->validation_size() == 0 || validated_at_ == state_.step) return ok_status();
  validated_at_ = state_.step;
  if (Status done = waited("on_validate_start"); !done) return done;
  Result<Agreement> agreement = evaluate(evaluation(Phase::kValidate));
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

// Once, after the final save: nothing that it changes is part of the run's state.
Status TrainingLoop::test() {
  const bool trained = ending_ == Ending::kNone || ending_ == Ending::kStop || ending_ == Ending::kEpoch;
  if (!parts_.config.train.test || !trained) return ok_status();
  if (Status done = waited("on_test_start"); !done) return done;
  Result<Agreement> agreement = evaluate(evaluation(Phase::kTest));
  if (!agreement) return agreement.error();
  validation_metrics_ = {{"loss", agreement->loss}, {"accuracy", agreement->accuracy}};
  test_ = Value(validation_metrics_);
  if (parts_.facts.is_main) outlets_.metrics({{"step", state_.step}, {"test", *test_}});
  if (Status done = apply(*agreement, "on_test_step_end"); !done) return done;
  const Status done = waited("on_test_end");
  validation_metrics_.clear();
  return done;
}

Result<Agreement> TrainingLoop::evaluate(const Evaluation& evaluation) {
  RankReport sums;
  {
    const at::NoGradGuard no_grad;
    parts_.model.module->eval();
    const std::vector<std::int64_t>& prefetch = plugins_.prefetch(evaluation.phase);
    for (std::size_t stage = 0; stage < prefetch.size(); ++stage) {
      for (std::int64_t i = 0; i < prefetch[stage]; ++i) submit_evaluated(evaluation, stage, i);
    }
    for (std::int64_t i = 0; i < evaluation.all; ++i) {
      for (std::size_t stage = 0; stage < prefetch.size(); ++stage)
        submit_evaluated(evaluation, stage, i + prefetch[stage]);
      if (i >= evaluation.own) {
        plugins_.pass(evaluation.step_end);
      } else if (Status done = evaluate_batch(evaluation, i, sums); !done) {
        return done.error();
      }
    }
    parts_.model.module->train();
  }
  return exchange(sums);
}

void TrainingLoop::submit_evaluated(const Evaluation& evaluation, std::size_t stage, std::int64_t index) {
  if (index >= evaluation.all) return;
  if (index >= evaluation.own) return plugins_.pass_stage(evaluation.phase, stage);
  CallContext call = context(state_.step).rank;
  call.micro_batch = index;
  std::optional<RawBatch> raw;
  std::size_t bytes = 0;
  if (stage == 0) {
    raw = raw_input(evaluation.phase, evaluation.split, evaluation.sampler.indices(index));
    bytes = bytes_of(raw->batch);
  }
  plugins_.transform(stage, {evaluation.phase, 0, index}, call, std::move(raw), bytes);
}

Status TrainingLoop::evaluate_batch(const Evaluation& evaluation, std::int64_t index, RankReport& sums) {
  bool skip = false;
  const auto raw = [&] {
    return parts_.dataset->gather(evaluation.split, evaluation.sampler.indices(index));
  };
  Result<TensorBatch> batch = plugins_.prefetch(evaluation.phase).empty()
                                  ? Result<TensorBatch>(raw())
                                  : usable(plugins_.take({evaluation.phase, 0, index}),
                                           plugins_.last_hook(evaluation.phase), raw, skip, sums);
  if (!batch) return batch.error();
  const Losses losses = parts_.model.forward(to_device(*batch, parts_.device));
  const auto count = static_cast<double>(losses.count);
  const double loss = losses.loss.item<double>();
  const double correct = losses.correct.item<double>();
  if (!skip) {
    sums.loss_sum += loss * count;  // by labels: a short last batch weighs less
    sums.weight += count;
    sums.correct += correct;
    sums.labels += count;
  }
  if (!plugins_.has(evaluation.step_end)) return ok_status();
  HookContext ended = context_with({{"loss", loss}, {"accuracy", correct / count}});
  ended.rank.micro_batch = ended.job.micro_batch = index;
  take_over(plugins_.call(evaluation.step_end, ended), sums);
  return ok_status();
}

}  // namespace bulkhead
