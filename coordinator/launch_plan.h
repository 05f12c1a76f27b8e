// How each process of a run is started: program, arguments, environment, log,
// limits.
//
// A pure function of the plan and the process asked for; starts nothing.  Any
// thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "child_process.h"
#include "process.h"
#include "program_paths.h"
#include "protocol/run_config.h"

namespace bulkhead {

struct LaunchPlan {
  ProgramPaths paths;
  std::vector<PluginConfig> plugins;
  std::int64_t ranks = 1;
  int cores = 1;                     // of this machine, shared by the ranks
  std::filesystem::path logs;        // folder
  std::filesystem::path run_folder;  // the run file's: plugins given as modules may lie there
  std::string endpoint;              // where the coordinator listens
  std::string secret;
  std::string master_addr = "127.0.0.1";
  int master_port = 0;                   // 0: rank 0 takes any free one
  std::vector<std::string> environment;  // ours, "KEY=value"; what we set replaces it
};

// OMP_NUM_THREADS of a rank: what the environment says, else its share of the
// cores.
std::int64_t threads_per_rank(const LaunchPlan& plan);
// Whether compute threads and plugin processes have a core each, so that one of
// them may spin.
bool has_cores_to_spare(const LaunchPlan& plan);

// "worker-0", "host-early-0": the process in logs and messages.
std::string process_name(const LaunchPlan& plan, const ProcessKey& key);
std::filesystem::path log_path(const LaunchPlan& plan, const ProcessKey& key);

// Of the process that forks the hosts of a Python plugin (zygote.h).
ChildOptions zygote_options(const LaunchPlan& plan, PluginId plugin);

ChildOptions child_options(const LaunchPlan& plan, const ProcessKey& key);

}  // namespace bulkhead
