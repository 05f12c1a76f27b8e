// A RunConfig written as a run file again: run.yaml of the run directory.
//
// Every key that counts for this run, defaults included, in the order of the
// schema; read back it gives the same RunConfig.  Pure; any thread.
#pragma once

#include <string>

#include "protocol/run_config.h"

namespace bulkhead {

std::string resolved_yaml(const RunConfig& config);

}  // namespace bulkhead
