// What the training loop tells: the facts of calls, lines of metrics, the end.
#include <algorithm>
#include <chrono>
#include <utility>

#include "checkpoint.h"
#include "training_loop.h"

namespace bulkhead {
namespace {

double seconds_between(TimePoint from, TimePoint to) {
  return std::chrono::duration<double>(to - from).count();
}

}  // namespace

// Step-level hooks: they are told and not waited for.
void TrainingLoop::tell(std::string_view hook, const HookContext& context, std::int64_t due,
                        PluginClient::When when) {
  if (!parts_.quiet.is_quiet(context.rank.global_step)) plugins_.notify(hook, context, due, when);
}

// The place in the run is that of `step`, all else what `facts` says.
void TrainingLoop::fill(HookContext& context, std::int64_t step, const StepFacts& facts) const {
  for (CallContext* call : {&context.rank, &context.job}) {
    call->epoch = state_.epoch;
    call->global_step = step;
    call->step_in_epoch = step - state_.epoch_first_step;
    call->epoch_length = plan_.length();
    call->max_steps = parts_.config.train.max_steps;
    call->max_epochs = parts_.config.train.max_epochs;
    call->best_metric = state_.best_metric;
    call->lr = facts.lr;
    call->grad_norm = facts.grad_norm;
  }
  context.rank.metrics = facts.rank_metrics;
  context.job.metrics = facts.job_metrics;
}

HookContext TrainingLoop::context(std::int64_t step) const {
  HookContext context;
  fill(context, step, state_.facts_of(step - 1));
  return context;
}

const HookContext& TrainingLoop::context_of(const StepFacts& facts, std::int64_t step) {
  fill(told_, step, facts);
  return told_;
}

HookContext TrainingLoop::context_with(const std::map<std::string, double>& metrics) const {
  HookContext context = this->context(state_.step);
  if (!metrics.empty()) context.rank.metrics = context.job.metrics = metrics;
  return context;
}

CallContext TrainingLoop::transform_context(std::size_t stage, std::int64_t step, std::int64_t micro) const {
  CallContext call = context(step).rank;
  const StepFacts& before = state_.facts_of(step - prefetch_[stage] - 1);
  call.lr = before.lr;
  call.grad_norm = before.grad_norm;
  call.metrics = before.rank_metrics;
  call.micro_batch = micro;
  return call;
}

// Whether this step has a line; rank 0 writes it.
bool TrainingLoop::log_step(const StepFacts& facts, bool forced) {
  const bool first = state_.step == first_step_ + 1 && first_step_ == 0;
  if (!first && !forced && !(log_every() > 0 && state_.step % log_every() == 0) && !is_last_step())
    return false;
  if (!parts_.facts.is_main) return true;
  const TimePoint now = compute_.now();
  const double seconds = std::max(seconds_between(logged_, now), 1e-9);
  const double samples = static_cast<double>((state_.due - logged_due_) * parts_.config.data.batch_size *
                                             parts_.facts.world_size);
  Value line = {{"step", state_.step},
                {"epoch", state_.epoch},
                {"loss", facts.job_metrics.at("loss")},
                {"accuracy", facts.job_metrics.at("accuracy")},
                {"lr", facts.lr},
                {"grad_norm", facts.grad_norm},
                {"samples_per_second", samples / seconds}};
  if (parts_.data_facts.kind == DataKind::kText) {
    line["tokens_per_second"] = samples * static_cast<double>(parts_.config.model.context) / seconds;
  }
  if (scales_loss()) {
    line["loss_scale"] = state_.loss_scale.scale;
    line["skipped_steps"] = state_.loss_scale.skipped_steps;
  }
  if (parts_.device.is_cuda()) line["device_memory_bytes"] = peak_memory(parts_.device);
  for (const auto& [name, value] : std::exchange(plugin_metrics_, {})) line[name] = value;
  logged_ = now;
  logged_due_ = state_.due;
  outlets_.metrics(std::move(line));
  return true;
}

// Since the step began, without the validation and the save that may follow it.
void TrainingLoop::time_step(std::int64_t step) {
  if (!parts_.quiet.is_settled(step)) return;
  StepTimes& times = parts_.quiet.is_quiet(step) ? quiet_times_ : times_;
  times.add(seconds_between(step_began_, compute_.now()));
}

Result<TrainingEnd> TrainingLoop::report_end() {
  TrainingEnd end;
  switch (ending_) {
    case Ending::kNone:
    case Ending::kEpoch:
      end.status = "completed";
      break;
    case Ending::kStop:
      end.status = "stopped";
      break;
    case Ending::kInterrupt:
      end.status = "interrupted";
      break;
    case Ending::kAbort:
      end.status = "aborted";
      break;
    case Ending::kFatal:
      end.status = "failed";
      break;
  }
  end.reason = reason_;
  const TrainConfig& train = parts_.config.train;
  const double seconds = std::max(seconds_between(started_, ended_), 1e-9);
  const std::int64_t samples_per_micro = parts_.config.data.batch_size * parts_.facts.world_size;
  const double rate = static_cast<double>((state_.due - first_due_) * samples_per_micro) / seconds;
  const Value loss =
      state_.history.empty() ? Value(nullptr) : Value(state_.history.back().job_metrics.at("loss"));
  end.result = {{"steps", state_.step},
                {"epochs", state_.whole_epochs},
                {"samples", state_.due * samples_per_micro},
                {"resumed_from", parts_.resumed ? first_step_ : 0},
                {"final_loss", loss},
                {"validation", validation_ ? *validation_ : Value(nullptr)},
                {"test", test_ ? *test_ : Value(nullptr)},
                {"agreed", ending_ == Ending::kFatal},
                {"params_sha256", params_sha256(named_parameters(parts_.model))},
                {"seconds", seconds},
                {"peak_memory_bytes", peak_memory(parts_.device)},
                {"step_ms", times_.report()},
                {"samples_per_second", rate}};
  if (parts_.data_facts.kind == DataKind::kText) {
    end.result["tokens_per_second"] = rate * static_cast<double>(parts_.config.model.context);
  }
  if (scales_loss()) end.result["skipped_steps"] = state_.loss_scale.skipped_steps;
  if (parts_.quiet.steps > 0) end.result["quiet_step_ms"] = quiet_times_.report();
  if (Status done = add_totals(end.result, seconds); !done) return done.error();
  if (parts_.facts.is_main && train.sample_tokens > 0 && parts_.model.sample && ending_ != Ending::kAbort) {
    const auto tokens = parts_.model.sample(train.sample_tokens, static_cast<std::uint64_t>(train.seed));
    end.result["sample"] = parts_.data_facts.decode(tokens);
  }
  return end;
}

// Micro-batches and waiting, over all ranks.
Status TrainingLoop::add_totals(Value& result, double seconds) {
  const Value own = {{"trained", state_.trained},
                     {"skipped", state_.skipped},
                     {"dead_lettered", state_.dead_lettered},
                     {"waited", plugins_.waited_seconds() - waited_before_}};
  Result<std::vector<std::string>> all = parts_.communicator->all_gather(own.dump());
  if (!all) return all.error();
  std::int64_t trained = 0;
  std::int64_t skipped = 0;
  std::int64_t dead_lettered = 0;
  double waited = 0;
  for (const std::string& text : *all) {
    const Value rank = Value::parse(text);
    trained += rank.at("trained").get<std::int64_t>();
    skipped += rank.at("skipped").get<std::int64_t>();
    dead_lettered += rank.at("dead_lettered").get<std::int64_t>();
    waited += rank.at("waited").get<double>();
  }
  const std::int64_t due = state_.due * parts_.facts.world_size;
  result["batches"] = {{"trained", trained},
                       {"lost", std::max<std::int64_t>(0, due - trained - skipped)},
                       {"duplicated", std::max<std::int64_t>(0, trained + skipped - due)},
                       {"skipped", skipped},
                       {"dead_lettered", dead_lettered}};
  result["plugin_overhead"] = waited / static_cast<double>(all->size()) / seconds;
  return ok_status();
}

}  // namespace bulkhead
