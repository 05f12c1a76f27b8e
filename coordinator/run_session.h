// One `bulkhead run`: the run directory, the sockets, the processes and the
// coordinator between them, from a checked run file to the exit status.
//
// The only place that joins decisions (Coordinator) to the world; decides
// nothing itself.  Used on the main thread, which runs the loop.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "child_process_guard.h"
#include "command_line.h"
#include "coordinator.h"
#include "private_directory.h"
#include "process_table.h"
#include "program_paths.h"
#include "protocol/channel.h"
#include "protocol/event_loop.h"
#include "run_console.h"
#include "run_file.h"
#include "run_place.h"

namespace bulkhead {

class RunSession {
 public:
  // Everything but the processes of the run; `context` is what the file was
  // read with, the paths are those of this program.  `signals` is a signalfd that stays the caller's.
  static Result<std::unique_ptr<RunSession>> open(RunOptions options, RunFile file, RunFileContext context,
                                                  ProgramPaths paths, int signals);

  // Runs to the end.  The exit status of DESIGN §5; for 2 the sentence is in
  // outcome().
  int run();
  const RunOutcome& outcome() const { return coordinator_->outcome(); }

 private:
  struct Parts;  // run_session.cpp: what open() has gathered
  explicit RunSession(Parts parts);
  CoordinatorHooks hooks();
  LaunchPlan launch_plan() const;
  RunConfig config_here() const;
  Result<RunConfig> reconfigure(PluginId plugin, const Value& changes);
  void cut_back(const std::string& checkpoint);
  void signalled();
  void refresh();
  void close_refused();

  RunOptions options_;
  RunFile file_;
  RunFileContext context_;
  ProgramPaths paths_;
  int signals_;
  std::string secret_;
  RunPlace place_;
  PrivateDirectory sockets_;
  ChildProcessGuard guard_;
  EventLoop loop_;
  RunConsole console_;
  std::unique_ptr<Listener> listener_;
  std::unique_ptr<ProcessTable> processes_;
  std::unique_ptr<Coordinator> coordinator_;
  EventLoop::Handle signal_watch_;
  EventLoop::Handle refresh_timer_;
};

}  // namespace bulkhead
