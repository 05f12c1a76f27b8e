#include "child_process.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>

namespace bulkhead {
namespace {

Error spawn_error(const std::string& what, int code) {
  return {ErrorCode::kUnavailable, "cannot start " + what + ": " + std::strerror(code)};
}

// posix_spawn's two parameter blocks, released together.
class SpawnSetup {
 public:
  SpawnSetup() {
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    sigset_t none;
    sigset_t all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    // The group exists before the shim runs, so a kill can never miss it.
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(&attributes,
                             POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  }
  ~SpawnSetup() {
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
  }
  SpawnSetup(const SpawnSetup&) = delete;
  SpawnSetup& operator=(const SpawnSetup&) = delete;

  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
};

std::vector<char*> pointers(const std::vector<std::string>& strings) {
  std::vector<char*> out;
  for (const std::string& string : strings) out.push_back(const_cast<char*>(string.c_str()));
  out.push_back(nullptr);
  return out;
}

std::vector<std::string> shim_arguments(const ChildOptions& options) {
  std::vector<std::string> arguments{options.shim.string(),
                                     "exec",
                                     std::to_string(::getpid()),
                                     std::to_string(options.oom_score_adj),
                                     std::to_string(options.limits.memory_bytes),
                                     std::to_string(options.limits.open_files),
                                     std::to_string(options.limits.cpu)};
  arguments.insert(arguments.end(), options.argv.begin(), options.argv.end());
  return arguments;
}

Result<pid_t> start(const ChildOptions& options) {
  SpawnSetup setup;
  if (options.input >= 0) {
    posix_spawn_file_actions_adddup2(&setup.actions, options.input, 0);
  } else {
    posix_spawn_file_actions_addopen(&setup.actions, 0, "/dev/null", O_RDONLY, 0);
  }
  posix_spawn_file_actions_addopen(&setup.actions, 1, options.log.c_str(), O_WRONLY | O_CREAT | O_APPEND,
                                   0644);
  posix_spawn_file_actions_adddup2(&setup.actions, 1, 2);
  if (!options.directory.empty()) {
    posix_spawn_file_actions_addchdir_np(&setup.actions, options.directory.c_str());
  }
  const std::vector<std::string> arguments = shim_arguments(options);
  pid_t pid = 0;
  const int code = posix_spawn(&pid, options.shim.c_str(), &setup.actions, &setup.attributes,
                               pointers(arguments).data(), pointers(options.env).data());
  if (code != 0) return spawn_error(options.argv.front(), code);
  return pid;
}

// By number: glibc 2.36 declares both without C linkage.
int open_pidfd(pid_t pid) { return static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)); }
void signal_pidfd(int pidfd, int signal) { ::syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0); }

ProcessEnd end_of(const siginfo_t& info) {
  ProcessEnd end;
  if (info.si_code == CLD_EXITED) {
    end.exit_code = info.si_status;
  } else {
    end.signal = info.si_status;
  }
  return end;
}

// Our children by the kernel's own list, of each of our threads.
std::vector<pid_t> children_of_this_process() {
  std::vector<pid_t> children;
  std::error_code ignored;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task", ignored)) {
    std::ifstream list(task.path() / "children");
    for (pid_t pid = 0; list >> pid;) children.push_back(pid);
  }
  return children;
}

}  // namespace

struct ChildProcess::State {
  pid_t pid = 0;
  int pidfd = -1;
  bool running = true;
  std::function<void(const ProcessEnd&)> on_exit;
  EventLoop::Handle watch;

  ~State() {
    if (running) {
      ::kill(-pid, SIGKILL);
      reap();
    }
  }

  // Waits for the end, which has come or is certain.
  ProcessEnd reap() {
    watch.reset();
    siginfo_t info{};
    while (::waitid(P_PIDFD, static_cast<id_t>(pidfd), &info, WEXITED) != 0 && errno == EINTR) {
    }
    running = false;
    ::close(pidfd);
    return end_of(info);
  }

  void ended() {
    // Before the reaping: as long as the leader is a zombie its group's number
    // cannot belong to anybody else.
    ::kill(-pid, SIGKILL);
    const ProcessEnd end = reap();
    const auto tell = std::move(on_exit);
    tell(end);  // may destroy this
  }
};

ChildProcess::ChildProcess(std::unique_ptr<State> state) : state_(std::move(state)) {}
ChildProcess::ChildProcess(ChildProcess&&) noexcept = default;
ChildProcess& ChildProcess::operator=(ChildProcess&&) noexcept = default;
ChildProcess::~ChildProcess() = default;

Result<ChildProcess> ChildProcess::spawn(EventLoop& loop, const ChildOptions& options,
                                         std::function<void(const ProcessEnd&)> on_exit) {
  CHECK(loop.in_loop());
  CHECK(!options.argv.empty());
  const Result<pid_t> pid = start(options);
  if (!pid) return pid.error();
  return adopt(loop, *pid, std::move(on_exit));
}

Result<ChildProcess> ChildProcess::adopt(EventLoop& loop, pid_t pid,
                                         std::function<void(const ProcessEnd&)> on_exit) {
  auto state = std::make_unique<State>();
  state->pid = pid;
  state->pidfd = open_pidfd(pid);
  if (state->pidfd < 0) {
    const int code = errno;
    ::kill(-pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    state->running = false;
    return Error{ErrorCode::kUnavailable, std::string("cannot watch a child: ") + std::strerror(code)};
  }
  state->on_exit = std::move(on_exit);
  state->watch = loop.watch_readable(state->pidfd, [raw = state.get()] { raw->ended(); });
  return ChildProcess(std::move(state));
}

pid_t ChildProcess::pid() const { return state_->pid; }
bool ChildProcess::running() const { return state_ != nullptr && state_->running; }

void ChildProcess::terminate() {
  if (running()) signal_pidfd(state_->pidfd, SIGTERM);
}

void ChildProcess::kill_group() {
  if (running()) ::kill(-state_->pid, SIGKILL);
}

void become_program(const std::vector<std::string>& argv, const std::vector<std::string>& environment) {
  const auto pointers = [](const std::vector<std::string>& texts) {
    std::vector<char*> all;
    for (const std::string& text : texts) all.push_back(const_cast<char*>(text.c_str()));
    all.push_back(nullptr);
    return all;
  };
  ::execve(argv.front().c_str(), pointers(argv).data(), pointers(environment).data());
}

std::vector<std::string> our_environment() {
  std::vector<std::string> entries;
  for (char** entry = environ; *entry != nullptr; ++entry) entries.emplace_back(*entry);
  return entries;
}

void become_subreaper() { CHECK(::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0, std::strerror(errno)); }

int end_strays(std::span<const pid_t> known) {
  int left = 0;
  for (const pid_t pid : children_of_this_process()) {
    if (std::find(known.begin(), known.end(), pid) != known.end()) continue;
    ::kill(pid, SIGKILL);
    if (::waitpid(pid, nullptr, WNOHANG) != pid) ++left;
  }
  return left;
}

}  // namespace bulkhead
