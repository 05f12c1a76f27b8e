// Input that a plugin could not take, kept for a person to look at and replay:
// dead_letters/<plugin>-rank<r>-call<seq>.safetensors and a .json beside it
// with the plugin, hook, step and reason.
// One file per call, whoever writes it; failures are logged, never thrown.
#pragma once

#include <string>

#include "protocol/messages.h"

namespace bulkhead {

void write_dead_letter(const std::string& directory, const std::string& plugin, std::int64_t rank,
                       const Call& call, const std::string& reason);

}  // namespace bulkhead
