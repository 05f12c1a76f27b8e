// The rules of a run file that look at more than one key, or at the disk.
//
// Reads nothing but directory entries.  Any thread.
#pragma once

#include "protocol/result.h"
#include "run_file.h"

namespace bulkhead {

// Model and data fit, an end of training is given, the data set is there, ….
// Turns train.device from auto into what this machine has beforehand:
// resolve_device.  Errors name the key's place.
Status check_run(const RunFile& run);

// train.device auto → cpu or cuda; cuda without one is refused.
Status resolve_device(RunFile& run, bool has_cuda);

// `device` of one plugin is cpu, or cuda where the ranks have GPUs, for a plugin
// of scope rank whose address space has no limit.
Status check_device(const RunFile& run, const std::string& key, const PluginConfig& plugin);

// `affinity` of one plugin is auto, none or CPUs that there are.
Status check_affinity(const RunFile& run, const std::string& key, const PluginConfig& plugin);

// The interpreter of one resolved plugin is there; a native one names none.
Status check_interpreter(const RunFile& run, const std::string& key, const PluginConfig& plugin);

}  // namespace bulkhead
