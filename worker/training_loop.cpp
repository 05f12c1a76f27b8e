#include "training_loop.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "optim/schedule.h"
#include "protocol/log.h"

namespace bulkhead {

TrainingLoop::TrainingLoop(Parts parts, TrainingState state, PluginClient& plugins, EventLoop& compute,
                           Outlets outlets)
    : parts_(std::move(parts)),
      state_(std::move(state)),
      plugins_(plugins),
      compute_(compute),
      outlets_(std::move(outlets)),
      sampler_(parts_.sampler_options(parts_.dataset.train_size())),
      prefetch_(plugins.prefetch()) {
  const TrainConfig& train = parts_.config.train;
  epoch_length_ = sampler_.batches_per_epoch() / train.accumulate;
  CHECK(epoch_length_ >= 1, "the data was checked to fill a step");
  total_steps_ = train.max_steps;
  if (train.max_epochs > 0) {
    const std::int64_t by_epochs = train.max_epochs * epoch_length_;
    total_steps_ = total_steps_ > 0 ? std::min(total_steps_, by_epochs) : by_epochs;
  }
  carried_ = state_.carried;
}

TrainingLoop::~TrainingLoop() = default;

void TrainingLoop::interrupt(std::string reason) {
  interrupted_ = true;
  if (reason_.empty()) reason_ = std::move(reason);
}

// ----- Phases -----

Result<TrainingEnd> TrainingLoop::run(std::vector<PendingBatch> batches) {
  plugins_.wait_ready();
  waited_before_ = plugins_.waited_seconds();
  first_step_ = state_.step;
  primed_ = take_up(std::move(batches));
  if (Status done = waited(parts_.resumed ? "on_load" : "on_train_start"); !done) return done.error();
  started_ = logged_ = compute_.now();
  logged_step_ = state_.step;
  while (ending_ == Ending::kNone && more_epochs()) {
    if (Status done = run_epoch(); !done) return done.error();
  }
  ended_ = compute_.now();
  if (Status done = finish(); !done) return done.error();
  return report_end();
}

bool TrainingLoop::more_epochs() const {
  if (state_.epoch_begun) return true;
  const std::int64_t limit = parts_.config.train.max_epochs;
  return state_.step < total_steps_ && (limit == 0 || state_.epoch < limit);  // one may have been cut short
}

Status TrainingLoop::run_epoch() {
  if (!state_.epoch_begun) {
    state_.epoch_begun = true;
    state_.epoch_first_step = state_.step;
    if (Status done = waited("on_epoch_start"); !done) return done;
  }
  if (!state_.epoch_closed && ending_ == Ending::kNone && !std::exchange(primed_, false)) prime_transforms();
  while (ending_ == Ending::kNone && state_.step < epoch_end_step()) {
    if (Status done = train_step(); !done) return done;
  }
  if (ending_ == Ending::kInterrupt || ending_ == Ending::kAbort) return ok_status();
  if (!prefetch_.empty() && state_.step < epoch_end_step()) plugins_.drop_batches();
  if (ending_ == Ending::kEpoch) ending_ = Ending::kNone;
  if (!std::exchange(state_.epoch_closed, true)) {
    if (Status done = waited("on_epoch_end"); !done) return done;
  }
  ++state_.epoch;
  if (state_.step_in_epoch == epoch_length_) ++state_.whole_epochs;
  state_.step_in_epoch = 0;
  state_.epoch_begun = state_.epoch_closed = false;
  return ok_status();
}

Status TrainingLoop::train_step() {
  compute_.run_ready();  // what the loop thread has posted: an interrupt
  plugins_.notify("on_step_start", context(state_.step));
  for (std::size_t stage = 0; stage < prefetch_.size(); ++stage)
    submit_transforms(stage, state_.step + prefetch_[stage]);
  if (!prefetch_.empty()) {
    const bool ahead = prefetch_.back() > 0 && state_.step + 1 < epoch_end_step();
    plugins_.want_batches(state_.step, parts_.config.train.accumulate);
    if (ahead) plugins_.want_batches(state_.step + 1, parts_.config.train.accumulate);
  }

  RankReport report = std::exchange(carried_, {});
  parts_.reducer.start_step();
  for (std::int64_t micro = 0; micro < parts_.config.train.accumulate; ++micro) {
    Result<double> weight = run_micro_batch(micro, report);
    if (!weight) return weight.error();
  }
  Result<double> total = parts_.reducer.finish();
  if (!total) return total.error();

  take_over(plugins_.collect(), report);
  report.interrupt = interrupted_;
  PendingGather gather = parts_.communicator->start_all_gather(to_bytes(report));

  StepFacts facts;
  facts.step = state_.step;
  facts.grad_norm = parts_.optimizer.clip_grad_norm(parts_.config.optimizer.grad_clip);
  facts.lr = lr_at(state_.step, parts_.config.schedule, parts_.config.optimizer.lr, total_steps_);
  if (*total > 0) {
    if (Status done = parts_.optimizer.step(facts.lr); !done) return done;
  }
  Result<Agreement> agreement = agreed(std::move(gather));
  if (!agreement) return agreement.error();

  const Agreement own = agree({report});
  facts.rank_metrics = {{"loss", own.loss}, {"accuracy", own.accuracy}};
  facts.job_metrics = {{"loss", agreement->loss}, {"accuracy", agreement->accuracy}};
  const std::int64_t deepest = prefetch_.empty() ? 0 : prefetch_.front();
  state_.remember(std::move(facts), static_cast<std::size_t>(deepest + 2));
  return boundary(*agreement);
}

// The end of step k: protocol/README.md, rule 8.
Status TrainingLoop::boundary(const Agreement& agreement) {
  const StepFacts facts = state_.history.back();
  HookContext ended = context(state_.step);
  ended.rank.metrics = facts.rank_metrics;
  ended.job.metrics = facts.job_metrics;
  for (CallContext* call : {&ended.rank, &ended.job}) {
    call->lr = facts.lr;
    call->grad_norm = facts.grad_norm;
  }
  ++state_.step;
  ++state_.step_in_epoch;
  outlets_.step(state_.step);
  plugins_.retire(agreement.given_up);
  plugins_.notify("on_step_end", ended);
  plugins_.notify("should_stop", ended);
  log_step(facts, agreement.control.log);

  if (!agreement.abort.empty()) {
    ending_ = Ending::kAbort;
    reason_ = agreement.abort;
    return ok_status();
  }
  if (agreement.control.stop) {
    ending_ = Ending::kStop;
    reason_ = agreement.control.reason;
    return ok_status();
  }
  if (agreement.interrupt) {
    ending_ = Ending::kInterrupt;
    return ok_status();
  }
  if (agreement.control.stop_epoch) {
    ending_ = Ending::kEpoch;
    return ok_status();
  }
  const TrainConfig& train = parts_.config.train;
  const bool validation_due = train.validate_every > 0
                                  ? state_.step % train.validate_every == 0 || is_last_step()
                                  : state_.step == epoch_end_step();
  if (validation_due || agreement.control.validate) {
    if (Status done = validate(); !done) return done;
    if (ending_ != Ending::kNone) return ok_status();  // a plugin said so in a validation hook
  }
  const std::int64_t every = parts_.config.checkpoint.every;
  if ((every > 0 && state_.step % every == 0) || agreement.control.save) return save();
  return ok_status();
}

Status TrainingLoop::finish() {
  if (ending_ == Ending::kAbort) return ok_status();
  if (ending_ != Ending::kInterrupt) {
    if (Status done = waited("on_train_end"); !done) return done;
  }
  return saved_at_ == state_.step && ending_ == Ending::kInterrupt ? ok_status() : save();
}

// ----- Agreement -----

void TrainingLoop::take_over(const Collected& collected, RankReport& report) {
  report.control.merge(collected.control);
  report.given_up.insert(report.given_up.end(), collected.given_up.begin(), collected.given_up.end());
  if (report.abort.empty()) report.abort = collected.abort;
  for (const Note& note : collected.notes) {
    if (!note.text.empty()) spdlog::info("{}", note.text);
    for (const auto& [name, value] : note.metrics) plugin_metrics_[name] = value;
  }
}

Result<Agreement> TrainingLoop::exchange(const RankReport& report) {
  return agreed(parts_.communicator->start_all_gather(to_bytes(report)));
}

Result<Agreement> TrainingLoop::agreed(PendingGather gather) {
  Result<std::vector<std::string>> gathered = gather.wait();
  if (!gathered) return gathered.error();
  std::vector<RankReport> reports;
  for (const std::string& bytes : *gathered) {
    Result<RankReport> report = report_from(bytes);
    if (!report) return report.error();
    reports.push_back(std::move(*report));
  }
  return agree(reports);
}

// Step-level replies still out keep their own step: they go with the next
// step's report.
void TrainingLoop::settle_pending() { take_over(plugins_.collect(), carried_); }

Status TrainingLoop::waited(std::string_view hook) {
  settle_pending();
  RankReport report;
  take_over(plugins_.call(hook, context_with(validation_metrics_)), report);
  Result<Agreement> agreement = exchange(report);
  if (!agreement) return agreement.error();
  return apply(*agreement, hook);
}

// Directly after a waited-for hook.  A validation does not ask for a
// validation, nor a save for a save: that would never end.
Status TrainingLoop::apply(const Agreement& agreement, std::string_view hook) {
  plugins_.retire(agreement.given_up);
  if (!agreement.abort.empty()) {
    ending_ = Ending::kAbort;
    reason_ = agreement.abort;
    return ok_status();
  }
  if (agreement.control.stop && ending_ != Ending::kInterrupt) {
    ending_ = Ending::kStop;
    reason_ = agreement.control.reason;
  } else if (agreement.control.stop_epoch && ending_ == Ending::kNone && hook != "on_epoch_end") {
    ending_ = Ending::kEpoch;
  }
  const bool in_validation = hook.starts_with("on_validate");
  const bool in_save = hook.starts_with("on_save");
  if (agreement.control.validate && !in_validation && !in_save) {
    if (Status done = validate(); !done) return done;
  }
  if (agreement.control.save && !in_save && !in_validation) return save();
  if (agreement.control.save && in_validation) carried_.control.save = true;
  return ok_status();
}

}  // namespace bulkhead
