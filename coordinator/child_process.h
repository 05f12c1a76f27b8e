// A process that we started: watched by pidfd, reaped at once, ended together
// with its whole process group.
//
// The only files that start and signal processes are child_process*.  A child
// goes through bulkhead-shim (child_process_shim.cpp), which ties its life to
// ours and sets its limits before the exec.  Used on the loop's thread, which
// must be the process's main thread: the parent-death signal follows the
// thread that spawned.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <sys/types.h>
#include <vector>

#include "process.h"
#include "protocol/event_loop.h"
#include "protocol/result.h"
#include "protocol/run_config.h"

namespace bulkhead {

struct ChildOptions {
  std::filesystem::path shim;       // bulkhead-shim
  std::vector<std::string> argv;    // argv[0] is the path of the program
  std::vector<std::string> env;     // all of it, "KEY=value"
  std::filesystem::path log;        // standard output and error are appended here
  std::filesystem::path directory;  // to start in; empty: ours
  int input = -1;                   // becomes standard input; −1: /dev/null
  int oom_score_adj = 0;            // −1000 … 1000; what we may not set becomes 0
  LimitsConfig limits;
};

class ChildProcess {
 public:
  // Starts it.  `on_exit` comes once, from the loop, after the child was
  // reaped and what was left of its group was killed; it may destroy this
  // object.  An Error when the shim cannot be started; a program that cannot be
  // executed ends with exit status 127 and a line in its log.
  static Result<ChildProcess> spawn(EventLoop& loop, const ChildOptions& options,
                                    std::function<void(const ProcessEnd&)> on_exit);

  // The same for a child of this process that somebody else has forked for us,
  // the leader of a group of its own.
  static Result<ChildProcess> adopt(EventLoop& loop, pid_t pid,
                                    std::function<void(const ProcessEnd&)> on_exit);

  ChildProcess(ChildProcess&&) noexcept;
  ChildProcess& operator=(ChildProcess&&) noexcept;
  // Kills the group and reaps the child: no zombie stays.  Calls nothing.
  ~ChildProcess();

  pid_t pid() const;
  bool running() const;

  // SIGTERM to the process; harmless after its end.
  void terminate();
  // SIGKILL to the whole group; harmless after its end.  on_exit follows.
  void kill_group();

 private:
  struct State;
  explicit ChildProcess(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// This process becomes the program: returns, with errno, only where it cannot
// be executed.  `environment` is all of it, "KEY=value".
void become_program(const std::vector<std::string>& argv, const std::vector<std::string>& environment);

// This process's environment, "KEY=value".
std::vector<std::string> our_environment();

// From now on orphans among our descendants become our children.
void become_subreaper();

// Kills children of this process that `known` does not name: what plugins
// started in sessions of their own and left behind.  Reaps those that have
// ended and returns how many have not; does not wait.
int end_strays(std::span<const pid_t> known);

}  // namespace bulkhead
