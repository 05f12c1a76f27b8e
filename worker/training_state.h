// Where a run stands, as a checkpoint keeps it: what is not a tensor and not a
// plugin's.  Plain values with their JSON form.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>

#include "loss_scale.h"
#include "protocol/messages.h"
#include "protocol/result.h"
#include "rank_report.h"

namespace bulkhead {

// What a step left behind, for the contexts of later calls.
struct StepFacts {
  std::int64_t step = -1;
  double lr = 0;
  double grad_norm = 0;
  std::map<std::string, double> rank_metrics;
  std::map<std::string, double> job_metrics;
};

// What plugins have set (ctx.set); none: as the run file has it.
struct HotSettings {
  std::optional<double> lr;
  std::optional<std::int64_t> log_every;
  std::optional<std::int64_t> validate_every;
  std::optional<std::int64_t> save_every;
};

struct TrainingState {
  std::int64_t step = 0;   // completed
  std::int64_t epoch = 0;  // the one that step `step` belongs to; those before it have ended
  std::int64_t step_in_epoch = 0;
  std::int64_t epoch_first_step = 0;
  std::int64_t whole_epochs = 0;  // that went through all of the data
  bool epoch_begun = false;       // on_epoch_start has been called
  bool epoch_closed = false;      // on_epoch_end has been called
  std::optional<double> best_metric;
  std::deque<StepFacts> history;  // oldest first, as many as prefetch needs

  HotSettings settings;
  Value plan;  // EpochPlan's; null: as configured

  // Micro-batches of this rank since the run began.
  std::int64_t due = 0;  // of completed steps
  std::int64_t trained = 0;
  std::int64_t skipped = 0;
  std::int64_t dead_lettered = 0;  // trained or skipped too

  LossScale loss_scale;  // of fp16

  // A pending Control takes effect at the same step after a resume.
  RankReport carried;

  // Facts of a step; zeros where it is unknown or before the first.
  const StepFacts& facts_of(std::int64_t step) const;
  void remember(StepFacts facts, std::size_t keep);
};

Value to_json(const TrainingState& state);
Result<TrainingState> state_from(const Value& json);

}  // namespace bulkhead
