#include "training_loop.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace bulkhead {

TrainingLoop::TrainingLoop(Parts parts, TrainingState state, PluginClient& plugins, EventLoop& compute,
                           Outlets outlets)
    : parts_(std::move(parts)),
      state_(std::move(state)),
      plugins_(plugins),
      compute_(compute),
      outlets_(std::move(outlets)),
      sampler_(parts_.sampler_options(parts_.dataset->train_size())),
      plan_(sampler_.batches_per_epoch(), parts_.config.train.accumulate),
      prefetch_(plugins.prefetch()),
      numbers_(parts_.device) {
  const TrainConfig& train = parts_.config.train;
  most_steps_ = train.max_steps > 0 ? train.max_steps : std::numeric_limits<std::int64_t>::max();
  schedule_steps_ = most_steps_;
  if (train.max_epochs > 0) schedule_steps_ = std::min(most_steps_, train.max_epochs * plan_.length());
  if (!state_.plan.is_null()) CHECK(plan_.load(state_.plan).ok(), "it was checked when it was read");
  carried_ = state_.carried;
}

TrainingLoop::~TrainingLoop() = default;

void TrainingLoop::interrupt(std::string reason) {
  if (interrupt_.empty()) interrupt_ = std::move(reason);
}

// ----- Phases -----

Result<TrainingEnd> TrainingLoop::run(std::vector<PendingBatch> batches) {
  Result<TrainingEnd> end = run_all(std::move(batches));
  const bool own_failure =
      !end && end.error().code != ErrorCode::kUnavailable;  // else a peer's, or the network's
  const std::string why = own_failure ? end.error().message : ending_ == Ending::kFatal ? reason_ : "";
  if (why.empty()) return end;
  HookContext context = context_with({});
  context.rank.exception = context.job.exception = why;
  if (own_failure) plugins_.leave_shared();
  plugins_.collect(state_.step);
  plugins_.call("on_exception", context);
  return end;
}

Result<TrainingEnd> TrainingLoop::run_all(std::vector<PendingBatch> batches) {
  plugins_.wait_ready();
  waited_before_ = plugins_.waited_seconds();
  first_step_ = state_.step;
  primed_ = take_up(std::move(batches));
  if (Status done = waited(parts_.resumed ? "on_load" : "on_train_start"); !done) return done.error();
  started_ = logged_ = compute_.now();
  logged_due_ = first_due_ = state_.due;
  while (ending_ == Ending::kNone && more_epochs()) {
    if (Status done = run_epoch(); !done) return done.error();
  }
  ended_ = compute_.now();
  if (Status done = finish(); !done) return done.error();
  if (Status done = test(); !done) return done.error();
  return report_end();
}

bool TrainingLoop::more_epochs() const {
  if (state_.epoch_begun) return true;
  const std::int64_t limit = parts_.config.train.max_epochs;
  return state_.step < most_steps_ && (limit == 0 || state_.epoch < limit);  // one may have been cut short
}

Status TrainingLoop::run_epoch() {
  if (!state_.epoch_begun) {
    state_.epoch_begun = true;
    state_.epoch_first_step = state_.step;
    plan_.begin(state_.step);
    if (Status done = waited("on_epoch_start"); !done) return done;
  }
  if (!state_.epoch_closed && ending_ == Ending::kNone && !std::exchange(primed_, false)) prime_transforms();
  while (ending_ == Ending::kNone && state_.step < epoch_end_step()) {
    if (Status done = train_step(); !done) return done;
  }
  if (ending_ == Ending::kInterrupt || ending_ == Ending::kAbort || ending_ == Ending::kFatal)
    return ok_status();
  if (!prefetch_.empty() && state_.step < epoch_end_step()) plugins_.drop_batches();
  if (ending_ == Ending::kEpoch) ending_ = Ending::kNone;
  if (!std::exchange(state_.epoch_closed, true)) {
    if (state_.step == plan_.end_step()) ++state_.whole_epochs;
    if (Status done = waited("on_epoch_end"); !done) return done;
  }
  ++state_.epoch;
  state_.step_in_epoch = 0;
  state_.epoch_begun = state_.epoch_closed = false;
  return ok_status();
}

Status TrainingLoop::train_step() {
  compute_.run_ready();  // what the loop thread has posted: an interrupt
  step_began_ = compute_.now();
  tell("on_step_start", context_of(state_.facts_of(state_.step - 1), state_.step), state_.step);
  plugins_.send_now();
  for (std::size_t stage = 0; stage < prefetch_.size(); ++stage)
    submit_transforms(stage, state_.step + prefetch_[stage]);
  if (!prefetch_.empty()) {
    if (!launched_ahead_ && taken_ahead_.empty()) want_batches(state_.step);
    if (prefetch_.back() > 0 && state_.step + 1 < epoch_end_step()) want_batches(state_.step + 1);
  }

  RankReport report = std::exchange(carried_, {});
  bool replayed = false;
  Result<double> weight = run_micro_batches(report, replayed);
  if (!weight) return weight.error();
  take_over(plugins_.collect(state_.step), report);
  report.interrupt = interrupt_;
  Result<Agreement> agreement = step_optimizer(report, *weight, replayed);
  if (!agreement) return agreement.error();
  return boundary(*agreement);
}

// Clipping, the update and the exchange of the ranks' reports.  The exchange
// hides behind the update on the CPU.  On a GPU everything is queued first, and
// then the step's numbers are waited for, once.  A plugin that wants to hear of
// the update with all metrics makes both wait.
Result<Agreement> TrainingLoop::step_optimizer(RankReport& report, double weight, bool replayed) {
  StepFacts facts;
  facts.step = state_.step;
  facts.lr = lr(state_.step);
  const double max_norm = parts_.config.optimizer.grad_clip;
  const bool told = plugins_.has("on_optimizer_step_start");
  const bool queue_first = parts_.device.is_cuda() && !told && !scales_loss() && weight > 0;
  std::optional<PendingGather> gather;
  const auto begin_exchange = [&] {
    const std::vector<double> more = add_losses(report);
    if (!more.empty()) facts.grad_norm = more.front();
    gather.emplace(parts_.communicator->start_all_gather(to_bytes(report)));
  };
  std::optional<Result<Agreement>> agreement;
  const auto conclude = [&] {
    agreement = agreed(std::move(*gather));
    if (!*agreement) return;
    const Agreement own = agree({report});
    facts.rank_metrics = {{"loss", own.loss}, {"accuracy", own.accuracy}};
    facts.job_metrics = {{"loss", (*agreement)->loss}, {"accuracy", (*agreement)->accuracy}};
  };
  if (queue_first) {
    Result<at::Tensor> norm =
        replayed ? replay_update(facts.lr, max_norm) : parts_.optimizer.clip_and_step(facts.lr, max_norm);
    if (!norm) return norm.error();
    if (Status done = parts_.optimizer.exchange(*parts_.communicator); !done) return done.error();
    numbers_.add(*norm);
    numbers_.send();
    Result<bool> ahead = all_may_go_ahead(replayed, report);
    if (!ahead) return ahead.error();
    if (*ahead) {
      if (Status done = go_ahead(); !done) return done.error();
    }
    begin_exchange();
  } else {
    begin_exchange();
    if (scales_loss()) parts_.optimizer.scale_gradients(1 / state_.loss_scale.scale);
    facts.grad_norm = parts_.optimizer.clip_grad_norm(max_norm);
    if (told) {
      conclude();
      if (!*agreement) return *agreement;
      tell("on_optimizer_step_start", context_of(facts, state_.step), state_.step + 1);
    }
    if (weight > 0) {
      if (Status done = update(facts.grad_norm, facts.lr); !done) return done.error();
    }
  }
  if (!agreement) conclude();
  if (!*agreement) return *agreement;
  tell("on_optimizer_step_end", context_of(facts, state_.step), state_.step + 1);
  const std::int64_t deepest = prefetch_.empty() ? 0 : prefetch_.front();
  state_.remember(std::move(facts), static_cast<std::size_t>(deepest + 2));
  return *agreement;
}

// With fp16 not where a gradient has overflowed.
Status TrainingLoop::update(double grad_norm, double lr) {
  if (scales_loss()) {
    const bool finite = std::isfinite(grad_norm);
    if (Status done = state_.loss_scale.update(finite); !done) return done;
    if (!finite) return ok_status();
  }
  if (Status done = parts_.optimizer.step(lr); !done) return done;
  return parts_.optimizer.exchange(*parts_.communicator);
}

// The end of step k: protocol/README.md, rule 8.
Status TrainingLoop::boundary(const Agreement& agreement) {
  const StepFacts& facts = state_.history.back();
  const HookContext& ended = context_of(facts, facts.step);
  state_.due += plan_.accumulate_of(state_.step);
  ++state_.step;
  ++state_.step_in_epoch;
  outlets_.step(state_.step);
  plugins_.retire(agreement.given_up);
  // These go with what follows at once: the next step's start, a validation, the end.
  tell("on_step_end", ended, state_.step, PluginClient::When::kWithNext);
  tell("should_stop", ended, state_.step, PluginClient::When::kWithNext);
  const bool validation_due = validate_every() > 0 ? state_.step % validate_every() == 0 || is_last_step()
                                                   : state_.step == epoch_end_step();
  const bool save_due = save_every() > 0 && state_.step % save_every() == 0;
  if (log_step(facts, agreement.control.log))
    tell("on_log", ended, state_.step, PluginClient::When::kWithNext);
  time_step(facts.step);
  set(agreement.control.settings, state_.step + (prefetch_.empty() ? 0 : prefetch_.front()));
  if (decide_end(agreement)) return ok_status();

  if (validation_due || agreement.control.validate) {
    if (Status done = validate(); !done) return done;
    if (ending_ != Ending::kNone) return ok_status();  // a plugin said so in a validation hook
  }
  // What is due at the last step is the final save.
  return (save_due && !is_last_step()) || agreement.control.save ? save() : ok_status();
}

// What a step's agreement ends; false where training goes on.
bool TrainingLoop::decide_end(const Agreement& agreement) {
  if (!agreement.abort.empty()) {
    ending_ = Ending::kAbort;
    reason_ = agreement.abort;
  } else if (!agreement.fatal.empty()) {
    ending_ = Ending::kFatal;
    reason_ = agreement.fatal;
  } else if (agreement.control.stop) {
    ending_ = Ending::kStop;
    reason_ = agreement.control.reason;
  } else if (!agreement.interrupt.empty()) {
    ending_ = Ending::kInterrupt;
    reason_ = agreement.interrupt;
  } else if (agreement.control.stop_epoch) {
    ending_ = Ending::kEpoch;
  }
  return ending_ != Ending::kNone;
}

Status TrainingLoop::finish() {
  if (ending_ == Ending::kAbort || ending_ == Ending::kFatal) return ok_status();
  if (ending_ != Ending::kInterrupt) {
    if (Status done = waited("on_train_end"); !done) return done;
    if (ending_ == Ending::kFatal || ending_ == Ending::kAbort) return ok_status();
  }
  return saved_at_ == state_.step && ending_ == Ending::kInterrupt ? ok_status() : save();
}

}  // namespace bulkhead
