// What a plugin's configure() returned, as changes of single keys.
//
// Knows which keys no plugin may change; whether a key exists and a value fits
// is the run file's reader's.  Pure; any thread.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "protocol/result.h"
#include "protocol/run_config.h"
#include "run_file.h"

namespace bulkhead {

// Dotted keys with their values, from dotted keys, nested mappings or both.
// Errors are sentences without a place.
Result<std::vector<std::pair<std::string, Value>>> flatten_changes(const Value& changes);

// The run as configure() gets it: the map that run.yaml holds.
Value run_map(const RunFile& run);

}  // namespace bulkhead
