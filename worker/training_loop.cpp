#include "training_loop.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/nn/module.h>

#include "checkpoint.h"
#include "optim/schedule.h"
#include "protocol/log.h"
#include "run_checkpoint.h"

namespace bulkhead {
namespace {

double seconds_between(TimePoint from, TimePoint to) {
  return std::chrono::duration<double>(to - from).count();
}

std::vector<NamedTensor> named_parameters(const Model& model) {
  std::vector<NamedTensor> parameters;
  for (const auto& item : model.module->named_parameters()) parameters.push_back({item.key(), item.value()});
  return parameters;
}

std::size_t bytes_of(const Batch& batch) {
  std::size_t bytes = 0;
  for (const Tensor& tensor : batch) bytes += tensor.bytes.size;
  return bytes;
}

SamplerOptions sampler_options(const RunConfig& config, const Facts& facts, std::int64_t size) {
  return {size, config.data.batch_size, facts.rank, facts.world_size, config.train.seed};
}

// Gradients may be needed again directly after: autograd is off only inside.
class NoGrad {
 public:
  NoGrad() : before_(c10::GradMode::is_enabled()) { c10::GradMode::set_enabled(false); }
  ~NoGrad() { c10::GradMode::set_enabled(before_); }
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  bool before_;
};

}  // namespace

TrainingLoop::TrainingLoop(Parts parts, TrainingState state, PluginClient& plugins, EventLoop& compute,
                           Outlets outlets)
    : parts_(std::move(parts)),
      state_(std::move(state)),
      plugins_(plugins),
      compute_(compute),
      outlets_(std::move(outlets)),
      sampler_(sampler_options(parts_.config, parts_.facts, parts_.dataset.train_size())),
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

// ----- Batches -----

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

// ----- Validation and checkpoints -----

Status TrainingLoop::validate() {
  if (parts_.dataset.validation_size() == 0 || validated_at_ == state_.step) return ok_status();
  validated_at_ = state_.step;
  if (Status done = waited("on_validate_start"); !done) return done;

  RankReport sums;
  {
    const NoGrad no_grad;
    parts_.model.module->eval();
    const ValidationSampler sampler(
        sampler_options(parts_.config, parts_.facts, parts_.dataset.validation_size()));
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

// ----- Contexts -----

HookContext TrainingLoop::context(std::int64_t step) const {
  CallContext call;
  call.epoch = state_.epoch;
  call.global_step = step;
  call.step_in_epoch = step - state_.epoch_first_step;
  call.epoch_length = epoch_length_;
  call.max_steps = parts_.config.train.max_steps;
  call.max_epochs = parts_.config.train.max_epochs;
  call.best_metric = state_.best_metric;
  const StepFacts before = state_.facts_of(step - 1);
  call.lr = before.lr;
  call.grad_norm = before.grad_norm;
  HookContext context{call, call};
  context.rank.metrics = before.rank_metrics;
  context.job.metrics = before.job_metrics;
  return context;
}

HookContext TrainingLoop::context_with(const std::map<std::string, double>& metrics) const {
  HookContext context = this->context(state_.step);
  if (!metrics.empty()) context.rank.metrics = context.job.metrics = metrics;
  return context;
}

CallContext TrainingLoop::transform_context(std::size_t stage, std::int64_t step, std::int64_t micro) const {
  CallContext call = context(step).rank;
  const StepFacts before = state_.facts_of(step - prefetch_[stage] - 1);
  call.lr = before.lr;
  call.grad_norm = before.grad_norm;
  call.metrics = before.rank_metrics;
  call.micro_batch = micro;
  return call;
}

// ----- Reports -----

void TrainingLoop::log_step(const StepFacts& facts, bool forced) {
  const bool first = state_.step == first_step_ + 1 && first_step_ == 0;
  const std::int64_t every = parts_.config.train.log_every;
  if (!first && !forced && !(every > 0 && state_.step % every == 0) && !is_last_step()) return;
  if (!parts_.facts.is_main) return;
  const TimePoint now = compute_.now();
  const double seconds = std::max(seconds_between(logged_, now), 1e-9);
  const double samples = static_cast<double>((state_.step - logged_step_) * parts_.config.train.accumulate *
                                             parts_.config.data.batch_size * parts_.facts.world_size);
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
  for (const auto& [name, value] : std::exchange(plugin_metrics_, {})) line[name] = value;
  logged_ = now;
  logged_step_ = state_.step;
  outlets_.metrics(std::move(line));
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
  }
  end.reason = reason_;
  const TrainConfig& train = parts_.config.train;
  const double seconds = std::max(seconds_between(started_, ended_), 1e-9);
  const std::int64_t samples_per_step =
      train.accumulate * parts_.config.data.batch_size * parts_.facts.world_size;
  const double rate = static_cast<double>((state_.step - first_step_) * samples_per_step) / seconds;
  const Value loss =
      state_.history.empty() ? Value(nullptr) : Value(state_.history.back().job_metrics.at("loss"));
  end.result = {{"steps", state_.step},
                {"epochs", state_.whole_epochs},
                {"samples", state_.step * samples_per_step},
                {"resumed_from", parts_.resumed ? first_step_ : 0},
                {"final_loss", loss},
                {"validation", validation_ ? *validation_ : Value(nullptr)},
                {"params_sha256", params_sha256(named_parameters(parts_.model))},
                {"seconds", seconds},
                {"samples_per_second", rate}};
  if (parts_.data_facts.kind == DataKind::kText) {
    end.result["tokens_per_second"] = rate * static_cast<double>(parts_.config.model.context);
  }
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
  const std::int64_t due = state_.step * parts_.config.train.accumulate * parts_.facts.world_size;
  result["batches"] = {{"trained", trained},
                       {"lost", std::max<std::int64_t>(0, due - trained - skipped)},
                       {"duplicated", std::max<std::int64_t>(0, trained + skipped - due)},
                       {"skipped", skipped},
                       {"dead_lettered", dead_lettered}};
  result["plugin_overhead"] = waited / static_cast<double>(all->size()) / seconds;
  return ok_status();
}

}  // namespace bulkhead
