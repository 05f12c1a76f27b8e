// The training loop's batches: raw, on their way through the plugins, trained on.
#include <algorithm>
#include <utility>

#include <ATen/ATen.h>

#include "training_loop.h"

namespace bulkhead {

std::int64_t TrainingLoop::epoch_end_step() const { return std::min(plan_.end_step(), most_steps_); }

bool TrainingLoop::is_last_step() const {
  const std::int64_t epochs = parts_.config.train.max_epochs;
  const bool last_epoch = epochs > 0 && state_.epoch + 1 >= epochs;
  return state_.step >= most_steps_ || (last_epoch && state_.step >= plan_.end_step());
}

void TrainingLoop::prime_transforms() {
  for (std::size_t stage = 0; stage < prefetch_.size(); ++stage) {
    for (std::int64_t step = state_.step; step < state_.step + prefetch_[stage]; ++step)
      submit_transforms(stage, step);
  }
}

// What a checkpoint kept on its way goes on where it was, if it is just what
// the chain must hold here; after a change of the run file it is made anew.
bool TrainingLoop::take_up(std::vector<PendingBatch> batches) {
  if (!state_.epoch_begun || state_.step_in_epoch == 0 || prefetch_.empty()) return false;
  std::size_t expected = 0;
  for (std::int64_t step = state_.step; step < std::min(state_.step + prefetch_.front(), epoch_end_step());
       ++step) {
    const auto stages = std::count_if(prefetch_.begin(), prefetch_.end(),
                                      [&](std::int64_t ahead) { return step < state_.step + ahead; });
    for (std::int64_t micro = 0; micro < plan_.accumulate_of(step); ++micro, ++expected) {
      if (expected >= batches.size()) return false;
      const PendingBatch& batch = batches[expected];
      if (batch.step != step || batch.micro != micro || batch.stages != stages) return false;
      raw_bytes_ = bytes_of(batch.batch);
    }
  }
  if (expected != batches.size()) return false;
  plugins_.restore_batches(std::move(batches));
  return true;
}

void TrainingLoop::submit_transforms(std::size_t stage, std::int64_t step) {
  if (step >= epoch_end_step() || parts_.quiet.is_quiet(step)) return;
  for (std::int64_t micro = 0; micro < plan_.accumulate_of(step); ++micro) {
    std::optional<RawBatch> raw;
    if (stage == 0) {
      raw = raw_input(step, micro);
      raw_bytes_ = bytes_of(raw->batch);
    }
    plugins_.transform(stage, {Phase::kTrain, step, micro}, transform_context(stage, step, micro),
                       std::move(raw), raw_bytes_);
  }
}

void TrainingLoop::want_batches(std::int64_t step) {
  if (parts_.quiet.is_quiet(step)) return;
  for (std::int64_t micro = 0; micro < plan_.accumulate_of(step); ++micro)
    plugins_.want_batch({Phase::kTrain, step, micro});
}

TensorBatch TrainingLoop::raw_batch(std::int64_t step, std::int64_t micro) {
  const std::int64_t batch = plan_.first_batch_of(step) + micro;
  return parts_.dataset->gather(Split::kTrain, sampler_.indices(state_.epoch, batch));
}

RawBatch TrainingLoop::raw_input(std::int64_t step, std::int64_t micro) {
  const std::int64_t batch = plan_.first_batch_of(step) + micro;
  const auto indices = sampler_.indices(state_.epoch, batch);
  return raw_input(Phase::kTrain, Split::kTrain, {indices.begin(), indices.end()});
}

// What the chain begins with: samples where a plugin wants them, else a batch,
// which its first plugin may have for itself.
RawBatch TrainingLoop::raw_input(Phase phase, Split split, std::vector<std::int64_t> indices) {
  const Dataset& data = *parts_.dataset;
  if (plugins_.takes_samples(phase)) return {data.raw_samples(split, indices), {}};
  Batch batch = to_wire(data.gather(split, indices, &batch_memory_));
  return {std::move(batch), [data = parts_.dataset, split, indices = std::move(indices)] {
            return to_wire(data->gather(split, indices));
          }};
}

Result<TensorBatch> TrainingLoop::next_batch(std::int64_t step, std::int64_t micro, bool& skip,
                                             RankReport& report) {
  const auto raw = [&] { return raw_batch(step, micro); };
  if (prefetch_.empty() || parts_.quiet.is_quiet(step)) return raw();
  TakenBatch taken = plugins_.take({Phase::kTrain, step, micro});
  if (taken.dead_letter) ++state_.dead_lettered;
  return usable(std::move(taken), plugins_.last_hook(Phase::kTrain), raw, skip, report);
}

Result<TensorBatch> TrainingLoop::usable(TakenBatch taken, std::string_view hook,
                                         const std::function<TensorBatch()>& raw, bool& skip,
                                         RankReport& report) {
  take_over(std::move(taken.collected), report);
  skip = taken.skip;
  Result<TensorBatch> batch = from_wire(taken.batch);
  if (!batch) return batch;
  if (Status fits = check_batch(*batch, parts_.data_facts); !fits) {
    // Right in form, impossible to use: a token outside the vocabulary.
    outlets_.event("error", {{"hook", hook}, {"step", state_.step}, {"reason", fits.error().message}});
    skip = true;
    return raw();
  }
  return batch;
}

Result<TrainingLoop::Taken> TrainingLoop::take_batch(std::int64_t step, std::int64_t micro,
                                                     RankReport& report) {
  Taken taken;
  Result<TensorBatch> batch = next_batch(step, micro, taken.skip, report);
  if (!batch) return batch.error();
  taken.batch = std::move(*batch);
  return taken;
}

Result<double> TrainingLoop::run_micro_batches(RankReport& report, bool& replayed) {
  const std::int64_t count = plan_.accumulate_of(state_.step);
  replayed = std::exchange(launched_ahead_, false);
  if (replayed) {
    count_replayed();
    return static_cast<double>(count);
  }
  std::vector<Taken> all = std::exchange(taken_ahead_, {});
  if (may_replay()) {
    for (auto micro = static_cast<std::int64_t>(all.size()); micro < count; ++micro) {
      Result<Taken> taken = take_batch(state_.step, micro, report);
      if (!taken) return taken.error();
      all.push_back(std::move(*taken));
    }
    Result<bool> done = replay(all);
    if (!done) return done.error();
    replayed = *done;
    if (replayed) return static_cast<double>(count);
  }
  parts_.reducer.start_step();
  for (std::int64_t micro = 0; micro < count; ++micro) {
    if (!all.empty()) {
      if (Status done = run_micro_batch(micro, all[static_cast<std::size_t>(micro)]); !done)
        return done.error();
      continue;
    }
    Result<Taken> taken = take_batch(state_.step, micro, report);
    if (!taken) return taken.error();
    if (Status done = run_micro_batch(micro, *taken); !done) return done.error();
  }
  ++queued_steps_;
  return parts_.reducer.finish();
}

Status TrainingLoop::run_micro_batch(std::int64_t micro, const Taken& taken) {
  const bool skip = taken.skip;
  const Losses losses = parts_.model.forward(to_device(taken.batch, parts_.device));
  // Batches of rows have unequal numbers of labels, of which each counts the same.
  const bool by_labels = parts_.data_facts.kind == DataKind::kRows;
  const double weight = skip ? 0 : by_labels ? static_cast<double>(losses.count) : 1;
  const bool last = micro + 1 == plan_.accumulate_of(state_.step);
  const at::Tensor loss = scales_loss() ? losses.loss * state_.loss_scale.scale : losses.loss;
  if (Status done = parts_.reducer.backward(loss, weight, last); !done) return done;
  tell_micro_batch(micro, losses);
  numbers_.add(losses.loss);
  numbers_.add(losses.correct);
  micros_.push_back({weight, losses.count, skip});
  ++(skip ? state_.skipped : state_.trained);
  return ok_status();
}

// Waits for the device.  What is left: numbers that were added behind the
// micro-batches'.
std::vector<double> TrainingLoop::add_losses(RankReport& report) {
  std::vector<double> numbers = numbers_.read();
  std::size_t at = 0;
  for (const MicroBatch& micro : std::exchange(micros_, {})) {
    const double loss = numbers[at++];
    const double correct = numbers[at++];
    if (micro.skipped) continue;
    report.weight += micro.weight;
    report.loss_sum += micro.weight * loss;
    report.correct += correct;
    report.labels += static_cast<double>(micro.labels);
  }
  numbers.erase(numbers.begin(), numbers.begin() + static_cast<std::ptrdiff_t>(at));
  return numbers;
}

// Only where a plugin listens is the device waited for.
void TrainingLoop::tell_micro_batch(std::int64_t micro, const Losses& losses) {
  const bool last = micro + 1 == plan_.accumulate_of(state_.step);
  for (const char* hook : {"on_backward_end", "on_substep_end"}) {
    if ((last && hook == std::string_view("on_substep_end")) || !plugins_.has(hook)) continue;
    HookContext told = context(state_.step);
    told.rank.metrics =
        told.job.metrics = {{"loss", losses.loss.item<double>()},
                            {"accuracy", losses.correct.item<double>() / static_cast<double>(losses.count)}};
    told.rank.micro_batch = told.job.micro_batch = micro;
    tell(hook, told, state_.step + 1);
  }
}

}  // namespace bulkhead
