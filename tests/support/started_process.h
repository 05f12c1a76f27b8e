// A program that a test starts with descriptors of its own, and that has ended
// when this object has: in good order, or killed after ten seconds.
#pragma once

#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <string>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "protocol/result.h"
#include "protocol/unique_fd.h"

namespace bulkhead {

class StartedProcess {
 public:
  // `inherited` appear there as 3, 4, …
  explicit StartedProcess(std::vector<std::string> argv, const std::vector<int>& inherited = {}) {
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    // Out of the way first: a target may be the number of another's source.
    std::vector<UniqueFd> copies;
    for (const int fd : inherited) copies.emplace_back(::fcntl(fd, F_DUPFD_CLOEXEC, 100));
    for (std::size_t i = 0; i < copies.size(); ++i)
      posix_spawn_file_actions_adddup2(&actions, copies[i].get(), static_cast<int>(3 + i));
    std::vector<char*> arguments;
    for (std::string& argument : argv) arguments.push_back(argument.data());
    arguments.push_back(nullptr);
    const int failed = ::posix_spawn(&pid_, argv[0].c_str(), &actions, nullptr, arguments.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    CHECK(failed == 0, argv[0]);
  }
  ~StartedProcess() { end(); }
  StartedProcess(const StartedProcess&) = delete;
  StartedProcess& operator=(const StartedProcess&) = delete;

  pid_t pid() const { return pid_; }
  // Nothing once it has ended: kill(-1) would be for every process there is.
  void signal(int number) const {
    if (pid_ > 0) ::kill(pid_, number);
  }

  // Waits for its end, −1 ms: for ever.  Its exit status, or −1 when it had to be killed.
  int end(int patience_ms = 10'000) {
    if (pid_ < 0) return status_;
    const UniqueFd watch(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
    pollfd item{watch.get(), POLLIN, 0};
    if (::poll(&item, 1, patience_ms) <= 0) ::kill(pid_, SIGKILL);
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    status_ = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return status_;
  }

 private:
  pid_t pid_ = -1;
  int status_ = -1;
};

}  // namespace bulkhead
