// What a run leaves for people's scripts: the lines of events.jsonl and
// metrics.jsonl, and summary.json.  Names, order and meaning are DESIGN §5's; changing them needs
// a reason.
//
// Values only; any thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "protocol/run_config.h"

namespace bulkhead {

// JSON whose keys stay in the order in which they were set.
using Json = nlohmann::ordered_json;

// One line without its line feed.  NaN and Inf become null, bytes that are not
// UTF-8 the replacement character.
std::string one_line(const Json& json);

// The keys of a line of events.jsonl or metrics.jsonl in the order in which
// people read them; others follow by name.
Json in_event_order(const Value& event);
Json in_metrics_order(const Value& metrics);

struct RankSummary {
  std::int64_t rank = 0;
  std::int64_t pid = 0;
  std::int64_t restarts = 0;
  std::optional<std::int64_t> exit;  // exit status; −N: killed by signal N; none: never ended in order
  std::optional<std::int64_t>
      peak_memory_bytes;  // of torch on its GPU, else of the process; none: never said
};

// One of signal, exit and reason says how the process ended.
struct CrashSummary {
  double time = 0;
  std::optional<std::string> signal;  // SIGSEGV
  std::optional<std::int64_t> exit;
  std::optional<std::string> reason;  // hang, garbage, …
  std::optional<std::string> hook;
  std::optional<std::int64_t> step;
  std::optional<std::string> batch;  // step 40 micro 0
};

struct PluginSummary {
  std::string name;
  std::string scope;
  std::optional<std::int64_t> rank;  // none in job scope
  std::int64_t starts = 0;
  std::vector<CrashSummary> crashes;
  std::int64_t calls = 0;
  std::int64_t errors = 0;
  std::map<std::string, std::int64_t> errors_by_kind;  // "ValueError: message" → how many
  std::int64_t retries = 0;
  std::int64_t events_sent = 0;
  std::int64_t events_dropped = 0;
  double p50_us = 0;  // of one call, sent to answered
  double p99_us = 0;
  std::string state;
};

// Micro-batches, over all ranks.
struct BatchCounts {
  std::int64_t trained = 0;
  std::int64_t lost = 0;
  std::int64_t duplicated = 0;
  std::int64_t skipped = 0;
  std::int64_t dead_lettered = 0;
};

struct Summary {
  std::string status;  // completed, stopped, failed, aborted, interrupted
  int exit_code = 0;
  std::string reason;
  std::int64_t steps = 0;
  std::int64_t epochs = 0;
  std::int64_t samples = 0;
  std::int64_t resumed_from = 0;     // step; 0 = fresh
  std::optional<double> final_loss;  // training loss of the last step
  Json validation = nullptr;         // {loss, …} of the last validation
  Json test = nullptr;               // {loss, …} of the test; null without one
  std::string params_sha256;
  double seconds = 0;            // first step to end of training
  Json step_ms = nullptr;        // of the newest steps, without validation and saves: {p50, p99, n}
  Json quiet_step_ms = nullptr;  // scripts/bench/hooks only: of those without step hooks
  double tokens_per_second = 0;
  std::optional<std::int64_t> skipped_steps;  // fp16 only: whose gradients were not finite
  std::vector<RankSummary> ranks;
  BatchCounts batches;
  std::vector<PluginSummary> plugins;
  double plugin_overhead = 0;  // share of step time that ranks waited for plugins
};

// Absent values are left out of crashes and are null elsewhere.
Json to_json(const Summary& summary);

}  // namespace bulkhead
