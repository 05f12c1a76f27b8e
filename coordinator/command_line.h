// The command line of the binary `bulkhead`: which part of it is asked for, and
// bulkhead-run's flags, which are torchrun's, in both of its spellings and with
// its PET_… variables.  This file owns CLI11.
//
// Prints nothing and never exits: main() does both.  Looks at the disk only for
// the path of --resume.  Any thread.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "protocol/result.h"

namespace bulkhead {

enum class ResumeFrom { kNothing, kNewestUnfinished, kPath };

struct RunOptions {
  int ranks = 1;      // --nproc-per-node, with auto, gpu and cpu counted out
  int node_rank = 0;  // 0 while one node is all there is
  std::string master_addr = "127.0.0.1";
  int master_port = 0;                           // 0: any free port
  bool standalone = false;                       // given: one node, any free port
  int max_restarts = 0;                          // of all ranks together, from the last checkpoint
  std::optional<std::filesystem::path> log_dir;  // default: logs/ in the run directory
  std::filesystem::path run_dir = "runs";
  std::chrono::milliseconds grace{30'000};  // from the first signal to SIGKILL
  ResumeFrom resume = ResumeFrom::kNothing;
  std::filesystem::path resume_path;  // of kPath; exists
  std::filesystem::path run_file;
  std::vector<std::string> overrides;  // key=value
};

// What to do: print `text` and exit with 0, run, list the shipped plugins, or
// become a plugin tool (plugin_tools.h).
struct CommandLine {
  enum class Action { kPrint, kRun, kListPlugins, kPluginTool };
  Action action = Action::kRun;
  std::string text{};
  RunOptions run{};
  std::string tool{};  // new | check
  std::vector<std::string> tool_arguments{};
};

// What flags are counted and defaulted by.
struct LaunchFacts {
  int gpus = 0;
  int cores = 1;
  // An environment variable, or nullptr; std::getenv in production.
  std::function<const char*(const char*)> environment;
};

// `arguments` without the program's name.  An Error is one sentence for exit
// status 2.
Result<CommandLine> parse_command_line(const std::vector<std::string>& arguments, const LaunchFacts& facts);

}  // namespace bulkhead
