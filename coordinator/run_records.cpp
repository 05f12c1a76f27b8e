#include "run_records.h"

#include <initializer_list>

namespace bulkhead {
namespace {

template <class T>
void put_if(Json& json, const char* key, const std::optional<T>& value) {
  if (value) json[key] = *value;
}

template <class T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

Json ordered(const Value& value, std::initializer_list<const char*> first) {
  Json json = Json::object();
  for (const char* key : first) {
    if (value.contains(key)) json[key] = value[key];
  }
  for (const auto& [key, item] : value.items()) {
    if (!json.contains(key)) json[key] = item;
  }
  return json;
}

Json to_json(const RankSummary& rank) {
  return {{"rank", rank.rank},
          {"pid", rank.pid},
          {"restarts", rank.restarts},
          {"exit", or_null(rank.exit)},
          {"peak_memory_bytes", or_null(rank.peak_memory_bytes)}};
}

Json to_json(const CrashSummary& crash) {
  Json json = {{"time", crash.time}};
  put_if(json, "signal", crash.signal);
  put_if(json, "exit", crash.exit);
  put_if(json, "reason", crash.reason);
  put_if(json, "hook", crash.hook);
  put_if(json, "step", crash.step);
  put_if(json, "batch", crash.batch);
  return json;
}

Json to_json(const PluginSummary& plugin) {
  Json crashes = Json::array();
  for (const CrashSummary& crash : plugin.crashes) crashes.push_back(to_json(crash));
  return {{"name", plugin.name},
          {"scope", plugin.scope},
          {"rank", or_null(plugin.rank)},
          {"starts", plugin.starts},
          {"crashes", std::move(crashes)},
          {"calls", plugin.calls},
          {"errors", plugin.errors},
          {"errors_by_kind", plugin.errors_by_kind},
          {"retries", plugin.retries},
          {"events_sent", plugin.events_sent},
          {"events_dropped", plugin.events_dropped},
          {"p50_us", plugin.p50_us},
          {"p99_us", plugin.p99_us},
          {"state", plugin.state}};
}

Json to_json(const BatchCounts& batches) {
  return {{"trained", batches.trained},
          {"lost", batches.lost},
          {"duplicated", batches.duplicated},
          {"skipped", batches.skipped},
          {"dead_lettered", batches.dead_lettered}};
}

}  // namespace

std::string one_line(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

Json in_event_order(const Value& event) {
  return ordered(event,
                 {"time", "event", "plugin", "rank", "generation", "hook", "step", "seconds", "reason"});
}

Json in_metrics_order(const Value& metrics) {
  return ordered(metrics, {"time", "step", "epoch", "loss", "lr", "grad_norm", "tokens_per_second"});
}

Json to_json(const Summary& summary) {
  Json ranks = Json::array();
  for (const RankSummary& rank : summary.ranks) ranks.push_back(to_json(rank));
  Json plugins = Json::array();
  for (const PluginSummary& plugin : summary.plugins) plugins.push_back(to_json(plugin));
  Json json = {{"status", summary.status},
               {"exit_code", summary.exit_code},
               {"reason", summary.reason},
               {"steps", summary.steps},
               {"epochs", summary.epochs},
               {"samples", summary.samples},
               {"resumed_from", summary.resumed_from},
               {"final_loss", or_null(summary.final_loss)},
               {"validation", summary.validation},
               {"test", summary.test},
               {"params_sha256", summary.params_sha256},
               {"seconds", summary.seconds},
               {"step_ms", summary.step_ms},
               {"tokens_per_second", summary.tokens_per_second},
               {"ranks", std::move(ranks)},
               {"batches", to_json(summary.batches)},
               {"plugins", std::move(plugins)},
               {"plugin_overhead", summary.plugin_overhead}};
  if (summary.skipped_steps) json["skipped_steps"] = *summary.skipped_steps;
  if (!summary.quiet_step_ms.is_null()) json["quiet_step_ms"] = summary.quiet_step_ms;
  return json;
}

}  // namespace bulkhead
