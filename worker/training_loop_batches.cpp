// The training loop's batches: raw, on their way through the plugins, trained on.
#include <algorithm>
#include <utility>

#include <ATen/ATen.h>

#include "training_loop.h"

namespace bulkhead {
namespace {

std::size_t bytes_of(const Batch& batch) {
  std::size_t bytes = 0;
  for (const Tensor& tensor : batch) bytes += tensor.bytes.size;
  return bytes;
}

}  // namespace

std::int64_t TrainingLoop::epoch_end_step() const {
  return std::min(state_.epoch_first_step + epoch_length_, total_steps_);
}

bool TrainingLoop::is_last_step() const { return state_.step >= total_steps_; }

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
    for (std::int64_t micro = 0; micro < parts_.config.train.accumulate; ++micro, ++expected) {
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
  if (step >= epoch_end_step()) return;
  for (std::int64_t micro = 0; micro < parts_.config.train.accumulate; ++micro) {
    std::optional<Batch> raw;
    if (stage == 0) {
      raw = to_wire(raw_batch(step, micro));
      raw_bytes_ = bytes_of(*raw);
    }
    plugins_.transform(stage, step, micro, transform_context(stage, step, micro), std::move(raw), raw_bytes_);
  }
}

TensorBatch TrainingLoop::raw_batch(std::int64_t step, std::int64_t micro) {
  const std::int64_t batch = (step - state_.epoch_first_step) * parts_.config.train.accumulate + micro;
  return parts_.dataset.gather(Split::kTrain, sampler_.indices(state_.epoch, batch));
}

Result<TensorBatch> TrainingLoop::next_batch(std::int64_t micro, bool& skip, RankReport& report) {
  if (prefetch_.empty()) return raw_batch(state_.step, micro);
  TakenBatch taken = plugins_.take(state_.step, micro);
  take_over(taken.collected, report);
  skip = taken.skip;
  if (taken.dead_letter) ++state_.dead_lettered;
  Result<TensorBatch> batch = from_wire(taken.batch);
  if (!batch) return batch.error();
  if (Status fits = check_batch(*batch, parts_.data_facts); !fits) {
    // Right in form, impossible to train on: a token outside the vocabulary.
    outlets_.event(
        "error",
        {{"hook", "transform_train_batch"}, {"step", state_.step}, {"reason", fits.error().message}});
    skip = true;
    return raw_batch(state_.step, micro);
  }
  return batch;
}

Result<double> TrainingLoop::run_micro_batch(std::int64_t micro, RankReport& report) {
  bool skip = false;
  Result<TensorBatch> batch = next_batch(micro, skip, report);
  if (!batch) return batch.error();
  const Losses losses = parts_.model.forward(to_device(*batch, parts_.device));
  const double weight = skip ? 0 : 1;
  const bool last = micro + 1 == parts_.config.train.accumulate;
  if (Status done = parts_.reducer.backward(losses.loss, weight, last); !done) return done.error();
  if (skip) {
    ++state_.skipped;
    return weight;
  }
  ++state_.trained;
  report.weight += weight;
  report.loss_sum += losses.loss.item<double>();
  report.correct += losses.correct.item<double>();
  report.labels += static_cast<double>(losses.count);
  return weight;
}

}  // namespace bulkhead
