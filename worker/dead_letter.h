// Input that a plugin could not take, kept for a person to look at and replay:
// dead_letters/<plugin>-rank<r>-call<seq>.safetensors and a .json beside it
// with the plugin, the call and the reason: all that `bulkhead plugin replay`
// (plugin-host/python, bulkhead/replay.py) needs but the plugin's state.
// One file per call, whoever writes it; failures are logged, never thrown.
#pragma once

#include <string>

#include "protocol/messages.h"

namespace bulkhead {

// `facts`: of the plugin's process.
void write_dead_letter(const std::string& directory, const PluginConfig& plugin, const Facts& facts,
                       const Call& call, const std::string& reason);

}  // namespace bulkhead
