// A RunConfig written as a run file again: run.yaml of the run directory.
//
// Every key that counts for this run, defaults included, in the order of the
// schema; read back it gives the same RunConfig.  Pure; any thread.
#pragma once

#include <string>
#include <vector>

#include "protocol/run_config.h"

namespace bulkhead {

// What a plugin's configure() changed.
struct ConfiguredChange {
  std::string plugin;  // its name
  std::string key;     // dotted
  Value value;
};

// `configured` is listed under that key, for people: the values are where they
// belong already.
std::string resolved_yaml(const RunConfig& config, const std::vector<ConfiguredChange>& configured = {});

}  // namespace bulkhead
