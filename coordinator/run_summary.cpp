#include "run_summary.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace bulkhead {
namespace {

// Reads one field of a rank's result; absent or of another type it is the
// default: a summary must come out whatever a worker sent.
template <class T>
T field(const Value& object, const char* name, T otherwise = {}) {
  if (!object.is_object()) return otherwise;
  const auto found = object.find(name);
  if (found == object.end()) return otherwise;
  if constexpr (std::is_same_v<T, std::string>) {
    return found->is_string() ? found->get<std::string>() : otherwise;
  } else {
    return found->is_number() ? found->get<T>() : otherwise;
  }
}

Value part(const Value& object, const char* name) {
  return object.is_object() && object.contains(name) ? object.at(name) : Value();
}

std::optional<double> number(const Value& value) {
  return value.is_number() ? std::optional(value.get<double>()) : std::nullopt;
}

std::optional<std::int64_t> whole_number(const Value& value) {
  return value.is_number_integer() ? std::optional(value.get<std::int64_t>()) : std::nullopt;
}

void fill_from_result(Summary& summary, const Value& result) {
  summary.steps = field<std::int64_t>(result, "steps");
  summary.epochs = field<std::int64_t>(result, "epochs");
  summary.samples = field<std::int64_t>(result, "samples");
  summary.resumed_from = field<std::int64_t>(result, "resumed_from");
  summary.final_loss = number(part(result, "final_loss"));
  summary.validation = Json(part(result, "validation"));
  summary.test = Json(part(result, "test"));
  summary.params_sha256 = field<std::string>(result, "params_sha256");
  summary.seconds = field<double>(result, "seconds");
  summary.step_ms = Json(part(result, "step_ms"));
  summary.quiet_step_ms = Json(part(result, "quiet_step_ms"));
  summary.tokens_per_second = field<double>(result, "tokens_per_second");
  summary.plugin_overhead = field<double>(result, "plugin_overhead");
  summary.skipped_steps = whole_number(part(result, "skipped_steps"));
  const Value batches = part(result, "batches");
  summary.batches = {.trained = field<std::int64_t>(batches, "trained"),
                     .lost = field<std::int64_t>(batches, "lost"),
                     .duplicated = field<std::int64_t>(batches, "duplicated"),
                     .skipped = field<std::int64_t>(batches, "skipped"),
                     .dead_lettered = field<std::int64_t>(batches, "dead_lettered")};
}

void fill_from_last_seen(Summary& summary, const LastSeen& seen) {
  summary.steps = field<std::int64_t>(seen.metrics, "step");
  summary.epochs = field<std::int64_t>(seen.metrics, "epoch");
  summary.resumed_from = seen.resumed_from;
  summary.final_loss = number(part(seen.metrics, "loss"));
  summary.validation = Json(seen.validation);
  summary.seconds = seen.last_metrics_time - seen.first_metrics_time;
  summary.tokens_per_second = field<double>(seen.metrics, "tokens_per_second");
}

RankSummary summary_of(const WorkerSupervisor& worker, std::int64_t restarts) {
  RankSummary rank{
      .rank = worker.rank(), .pid = worker.pid(), .restarts = restarts, .exit = {}, .peak_memory_bytes = {}};
  if (const auto& exit = worker.exit())
    rank.exit = exit->signal ? -*exit->signal : exit->exit_code.value_or(0);
  if (const auto& done = worker.done())
    rank.peak_memory_bytes = whole_number(part(done->result, "peak_memory_bytes"));
  return rank;
}

const PluginReport* report_on(const HostSupervisor& host,
                              std::span<const std::unique_ptr<WorkerSupervisor>> workers) {
  for (const auto& worker : workers) {
    if (worker->rank() != host.rank() || !worker->done()) continue;
    for (const PluginReport& report : worker->done()->plugins) {
      if (report.plugin == host.plugin()) return &report;
    }
  }
  return nullptr;
}

PluginSummary summary_of(const HostSupervisor& host, const PluginReport* report) {
  PluginSummary plugin;
  plugin.name = host.config().name;
  plugin.scope = host.config().scope;
  if (plugin.scope == "rank") plugin.rank = host.rank();
  plugin.starts = host.starts();
  plugin.crashes = host.crashes();
  plugin.errors_by_kind = host.errors().counts();
  plugin.state = host.state_name();
  if (report == nullptr) return plugin;
  plugin.calls = report->calls;
  plugin.errors = report->errors;
  plugin.retries = report->retries;
  plugin.events_sent = report->events_sent;
  plugin.events_dropped = report->events_dropped;
  plugin.p50_us = report->p50_us;
  plugin.p99_us = report->p99_us;
  return plugin;
}

struct Ending {
  std::string_view status;
  int exit_code;
};
// From worst to best; DESIGN §5 has the numbers.
constexpr std::array kEndings{Ending{"aborted", 3}, Ending{"failed", 1}, Ending{"interrupted", 130},
                              Ending{"stopped", 0}, Ending{"completed", 0}};

// Empty, or the sentence that the ranks' weights differ.
std::string weights_differ(std::span<const WorkerDone> reports) {
  std::string first;
  for (std::size_t rank = 0; rank < reports.size(); ++rank) {
    const auto sha = field<std::string>(reports[rank].result, "params_sha256");
    if (sha.empty()) continue;
    if (first.empty()) first = sha;
    if (sha == first) continue;
    return "the ranks ended with different weights: rank " + std::to_string(rank) + " has " +
           sha.substr(0, 12) + ", an earlier one " + first.substr(0, 12);
  }
  return {};
}

}  // namespace

Summary summarize(const RunOutcome& outcome, const LastSeen& seen, std::int64_t rank_restarts,
                  std::span<const std::unique_ptr<WorkerSupervisor>> workers,
                  std::span<const std::unique_ptr<HostSupervisor>> hosts) {
  Summary summary;
  const auto& done = workers.front()->done();
  if (done && done->result.is_object() && !done->result.empty()) {
    fill_from_result(summary, done->result);
  } else {
    fill_from_last_seen(summary, seen);
  }
  summary.status = outcome.status;
  summary.exit_code = outcome.exit_code;
  summary.reason = outcome.reason;
  for (const auto& worker : workers) summary.ranks.push_back(summary_of(*worker, rank_restarts));
  for (const auto& host : hosts) summary.plugins.push_back(summary_of(*host, report_on(*host, workers)));
  return summary;
}

RunOutcome combine(std::span<const WorkerDone> reports) {
  RunOutcome outcome;
  for (const Ending& ending : kEndings) {
    const auto found = std::find_if(reports.begin(), reports.end(),
                                    [&](const auto& report) { return report.status == ending.status; });
    if (found == reports.end()) continue;
    outcome = {std::string(ending.status), ending.exit_code, found->reason};
    break;
  }
  if (outcome.status.empty())
    return {"failed", 1, "a rank ended with the unknown status " + reports.front().status};
  if (std::string sentence = weights_differ(reports); !sentence.empty())
    return {"failed", 1, std::move(sentence)};
  return outcome;
}

}  // namespace bulkhead
