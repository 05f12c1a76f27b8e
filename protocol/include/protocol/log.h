// Where a process's log lines go: spdlog's default logger, set up once in
// main().  Lines read "time level [process] message"; secrets never reach
// them.  spdlog is thread-safe.
#pragma once

#include <string>

#include <spdlog/spdlog.h>

namespace bulkhead {

// `process` names the process in each line, e.g. "worker-0".  Writes to
// standard error, which the coordinator has opened on logs/<process>.log.
// The level comes from BULKHEAD_LOG (trace … off); default info.
void start_log(const std::string& process);

}  // namespace bulkhead
