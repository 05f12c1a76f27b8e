#include "training_state.h"

#include <algorithm>
#include <limits>

#include "epoch_plan.h"

namespace bulkhead {
namespace {

Value facts_to_json(const StepFacts& facts) {
  return {{"step", facts.step},
          {"lr", facts.lr},
          {"grad_norm", facts.grad_norm},
          {"rank_metrics", facts.rank_metrics},
          {"job_metrics", facts.job_metrics}};
}

// JSON has no number that is not finite; it is written as null.
double number_from(const Value& json) {
  return json.is_null() ? std::numeric_limits<double>::quiet_NaN() : json.get<double>();
}

std::map<std::string, double> metrics_from(const Value& json) {
  std::map<std::string, double> metrics;
  for (const auto& [name, value] : json.items()) metrics[name] = number_from(value);
  return metrics;
}

StepFacts facts_from(const Value& json) {
  StepFacts facts;
  json.at("step").get_to(facts.step);
  json.at("lr").get_to(facts.lr);
  facts.grad_norm = number_from(json.at("grad_norm"));
  facts.rank_metrics = metrics_from(json.at("rank_metrics"));
  facts.job_metrics = metrics_from(json.at("job_metrics"));
  return facts;
}

template <class T>
Value optional_to_json(const std::optional<T>& value) {
  return value ? Value(*value) : Value(nullptr);
}

template <class T>
void optional_from(const Value& json, std::optional<T>& value) {
  if (!json.is_null()) value = json.get<T>();
}

Value settings_to_json(const HotSettings& settings) {
  return {{"lr", optional_to_json(settings.lr)},
          {"log_every", optional_to_json(settings.log_every)},
          {"validate_every", optional_to_json(settings.validate_every)},
          {"save_every", optional_to_json(settings.save_every)}};
}

HotSettings settings_from(const Value& json) {
  HotSettings settings;
  optional_from(json.at("lr"), settings.lr);
  optional_from(json.at("log_every"), settings.log_every);
  optional_from(json.at("validate_every"), settings.validate_every);
  optional_from(json.at("save_every"), settings.save_every);
  return settings;
}

Value scale_to_json(const LossScale& scale) {
  return {
      {"scale", scale.scale}, {"finite_steps", scale.finite_steps}, {"skipped_steps", scale.skipped_steps}};
}

LossScale scale_from(const Value& json) {
  LossScale scale;
  json.at("scale").get_to(scale.scale);
  json.at("finite_steps").get_to(scale.finite_steps);
  json.at("skipped_steps").get_to(scale.skipped_steps);
  return scale;
}

}  // namespace

const StepFacts& TrainingState::facts_of(std::int64_t wanted) const {
  static const StepFacts unknown;
  const auto found = std::find_if(history.begin(), history.end(),
                                  [&](const StepFacts& facts) { return facts.step == wanted; });
  return found == history.end() ? unknown : *found;
}

void TrainingState::remember(StepFacts facts, std::size_t keep) {
  history.push_back(std::move(facts));
  while (history.size() > keep) history.pop_front();
}

Value to_json(const TrainingState& state) {
  Value history = Value::array();
  for (const StepFacts& facts : state.history) history.push_back(facts_to_json(facts));
  const std::string carried = to_bytes(state.carried);
  return {{"step", state.step},
          {"epoch", state.epoch},
          {"step_in_epoch", state.step_in_epoch},
          {"epoch_first_step", state.epoch_first_step},
          {"whole_epochs", state.whole_epochs},
          {"epoch_begun", state.epoch_begun},
          {"epoch_closed", state.epoch_closed},
          {"best_metric", optional_to_json(state.best_metric)},
          {"settings", settings_to_json(state.settings)},
          {"plan", state.plan},
          {"due", state.due},
          {"history", std::move(history)},
          {"trained", state.trained},
          {"skipped", state.skipped},
          {"dead_lettered", state.dead_lettered},
          {"loss_scale", scale_to_json(state.loss_scale)},
          {"carried", Value::from_msgpack(carried)}};
}

Result<TrainingState> state_from(const Value& json) {
  try {
    TrainingState state;
    json.at("step").get_to(state.step);
    json.at("epoch").get_to(state.epoch);
    json.at("step_in_epoch").get_to(state.step_in_epoch);
    json.at("epoch_first_step").get_to(state.epoch_first_step);
    json.at("whole_epochs").get_to(state.whole_epochs);
    json.at("epoch_begun").get_to(state.epoch_begun);
    json.at("epoch_closed").get_to(state.epoch_closed);
    optional_from(json.at("best_metric"), state.best_metric);
    state.settings = settings_from(json.at("settings"));
    state.plan = json.at("plan");
    if (!state.plan.is_null()) {
      EpochPlan plan(std::numeric_limits<std::int64_t>::max(), 1);
      if (Status sound = plan.load(state.plan); !sound) return sound.error();
    }
    json.at("due").get_to(state.due);
    for (const Value& facts : json.at("history")) state.history.push_back(facts_from(facts));
    json.at("trained").get_to(state.trained);
    json.at("skipped").get_to(state.skipped);
    json.at("dead_lettered").get_to(state.dead_lettered);
    state.loss_scale = scale_from(json.at("loss_scale"));
    const std::vector<std::uint8_t> carried = Value::to_msgpack(json.at("carried"));
    Result<RankReport> report = report_from({carried.begin(), carried.end()});
    if (!report) return report.error();
    state.carried = std::move(*report);
    return state;
  } catch (const Value::exception& error) {
    return Error{ErrorCode::kMalformed, std::string("the state of a run: ") + error.what()};
  }
}

}  // namespace bulkhead
