// What the ranks agree on, and what it changes: Control, settings, weights.
#include <optional>
#include <sstream>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "optim/schedule.h"
#include "protocol/log.h"
#include "training_loop.h"

namespace bulkhead {

void TrainingLoop::take_over(Collected collected, RankReport& report) {
  report.control.merge(collected.control);
  report.given_up.insert(report.given_up.end(), collected.given_up.begin(), collected.given_up.end());
  if (report.abort.empty()) report.abort = collected.abort;
  if (report.fatal.empty()) report.fatal = collected.fatal;
  if (collected.weights_of >= 0 && collected.weights_of >= report.weights_of) {
    if (const std::string objection = objection_to(collected.weights); objection.empty()) {
      report.weights_of = collected.weights_of;
      weights_ = std::move(collected.weights);
    } else {
      outlets_.event("error", {{"step", state_.step}, {"reason", "ctx.load_weights: " + objection}});
    }
  }
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

// Every rank's text, in rank order, of any length.
Result<std::vector<std::string>> TrainingLoop::all_texts(const std::string& own) {
  constexpr std::size_t kPiece = kMaxGatherBytes / 2;
  std::vector<std::string> texts(static_cast<std::size_t>(parts_.facts.world_size));
  bool more = true;
  for (std::size_t at = 0; more; at += kPiece) {
    Result<std::vector<std::string>> pieces =
        parts_.communicator->all_gather(at < own.size() ? own.substr(at, kPiece) : "");
    if (!pieces) return pieces;
    more = false;
    for (std::size_t rank = 0; rank < texts.size(); ++rank) {
      texts[rank] += (*pieces)[rank];
      more |= (*pieces)[rank].size() == kPiece;
    }
  }
  return texts;
}

// Step-level replies still out keep their own step: they go with the next
// step's report.
void TrainingLoop::settle_pending() { take_over(plugins_.collect(state_.step), carried_); }

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
  if (agreement.weights_root >= 0) {
    if (Status done = load_weights(agreement.weights_root); !done) return done;
  }
  const bool all_unsent = hook == "on_epoch_start" || prefetch_.empty();
  set(agreement.control.settings, state_.step + (all_unsent ? 0 : prefetch_.front()));
  if (!agreement.abort.empty() || !agreement.fatal.empty()) {
    ending_ = agreement.abort.empty() ? Ending::kFatal : Ending::kAbort;
    reason_ = agreement.abort.empty() ? agreement.fatal : agreement.abort;
    return ok_status();
  }
  // The first reason counts: the hooks of the last save are asked as well.
  if (agreement.control.stop && ending_ != Ending::kInterrupt && ending_ != Ending::kStop) {
    ending_ = Ending::kStop;
    reason_ = agreement.control.reason;
  } else if (agreement.control.stop_epoch && ending_ == Ending::kNone && hook != "on_epoch_end") {
    ending_ = Ending::kEpoch;
  }
  const bool in_validation = hook.starts_with("on_validate") || hook.starts_with("on_test");
  const bool in_save = hook.starts_with("on_save");
  if (agreement.control.validate && !in_validation && !in_save) {
    if (Status done = validate(); !done) return done;
  }
  if (agreement.control.save && !in_save && !in_validation) return save();
  if (agreement.control.save && in_validation) carried_.control.save = true;
  return ok_status();
}

// From this boundary on; `accumulate_from`: the first step whose micro-batches
// nobody has sent yet.
void TrainingLoop::set(const std::vector<Setting>& settings, std::int64_t accumulate_from) {
  for (const Setting& setting : settings) {
    std::optional<std::int64_t> count;
    if (setting.value) count = static_cast<std::int64_t>(*setting.value);
    if (setting.name == "lr") state_.settings.lr = setting.value;
    if (setting.name == "log_every") state_.settings.log_every = count;
    if (setting.name == "validate_every") state_.settings.validate_every = count;
    if (setting.name == "save_every") state_.settings.save_every = count;
    if (setting.name == "grad_accum" && count) plan_.set(accumulate_from, *count);
    const Value value = setting.value ? Value(*setting.value) : Value(nullptr);
    if (parts_.facts.is_main) {
      outlets_.event("set", {{"step", state_.step}, {"name", setting.name}, {"value", value}});
    }
  }
}

double TrainingLoop::lr(std::int64_t step) const {
  return state_.settings.lr.value_or(
      lr_at(step, parts_.config.schedule, parts_.config.optimizer.lr, schedule_steps_));
}

// ----- Weights from a plugin -----

// Empty, or why these cannot replace parameters of the model.
std::string TrainingLoop::objection_to(const Batch& weights) const {
  const std::vector<NamedTensor> parameters = named_parameters(parts_.model);
  Result<TensorBatch> tensors = from_wire(weights);
  if (!tensors) return tensors.error().message;
  for (const NamedTensor& tensor : *tensors) {
    const at::Tensor* parameter = find_tensor(parameters, tensor.name);
    if (parameter == nullptr) return "the model has no parameter \"" + tensor.name + "\"";
    if (tensor.value.sizes() != parameter->sizes() ||
        tensor.value.scalar_type() != parameter->scalar_type()) {
      return "\"" + tensor.name + "\" has another shape or type than the parameter";
    }
  }
  return {};
}

// All ranks take what rank `root` has in weights_.
Status TrainingLoop::load_weights(std::int64_t root) {
  const bool is_root = parts_.facts.rank == root;
  const Batch given = std::exchange(weights_, {});
  std::string names;
  if (is_root) {
    for (const Tensor& tensor : given) names += tensor.name + "\n";
  }
  Result<std::vector<std::string>> all = all_texts(names);
  if (!all) return all.error();
  TensorBatch values;
  if (is_root) values = *from_wire(given);
  const std::vector<NamedTensor> parameters = named_parameters(parts_.model);
  std::vector<std::string> loaded;
  std::istringstream lines((*all)[static_cast<std::size_t>(root)]);
  const at::NoGradGuard no_grad;
  for (std::string name; std::getline(lines, name); loaded.push_back(name)) {
    at::Tensor parameter = tensor_named(parameters, name);
    at::Tensor value = is_root ? tensor_named(values, name).to(parts_.device) : at::empty_like(parameter);
    value = value.contiguous();
    if (Status sent = parts_.communicator->broadcast(value, WorkerId(root)); !sent) return sent;
    parameter.copy_(value);
  }
  parts_.optimizer.forget(loaded);
  parts_.optimizer.refresh_copies();
  if (parts_.facts.is_main) {
    outlets_.event("load_weights", {{"step", state_.step}, {"parameters", loaded.size()}});
  }
  return ok_status();
}

}  // namespace bulkhead
