// summary.json put together from what the ranks reported and the coordinator
// saw itself.
//
// A pure function of its arguments; any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "host_supervisor.h"
#include "protocol/run_config.h"
#include "run_records.h"
#include "worker_supervisor.h"

namespace bulkhead {

struct RunOutcome {
  std::string status;  // completed | stopped | failed | aborted | interrupted | refused
  int exit_code = 0;
  std::string reason;  // for a person; a refused run's whole sentence
};

// What is known of the training without the ranks' last word: of a run that
// did not come to its end.
struct LastSeen {
  double first_metrics_time = 0;  // of the first metrics line, seconds since the epoch; 0 = none came
  double last_metrics_time = 0;
  Value metrics = Value::object();  // the newest line with a loss
  Value validation;                 // of the newest validation
  std::int64_t resumed_from = 0;
};

Summary summarize(const RunOutcome& outcome, const LastSeen& seen, std::int64_t rank_restarts,
                  std::span<const std::unique_ptr<WorkerSupervisor>> workers,
                  std::span<const std::unique_ptr<HostSupervisor>> hosts);

// The end that all ranks' reports make together: the worst status, the reason
// of the first rank that gives one; failed where their weights differ.
RunOutcome combine(std::span<const WorkerDone> reports);

}  // namespace bulkhead
