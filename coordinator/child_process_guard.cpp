#include "child_process_guard.h"

#include <cerrno>
#include <cstring>
#include <spawn.h>
#include <string>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>

namespace bulkhead {

Result<ChildProcessGuard> ChildProcessGuard::start(const std::filesystem::path& shim,
                                                   const std::filesystem::path& directory) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return Error{ErrorCode::kUnavailable, std::string("cannot make a socket pair: ") + std::strerror(errno)};
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 0);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);  // out of reach of a terminal's Ctrl-C
  const std::string program = shim.string();
  const std::string argument = directory.string();
  char mode[] = "guard";
  char* argv[] = {const_cast<char*>(program.c_str()), mode, const_cast<char*>(argument.c_str()), nullptr};
  pid_t pid = 0;
  const int code = posix_spawn(&pid, program.c_str(), &actions, &attributes, argv, environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  if (code == 0) return ChildProcessGuard(pid, ends[0]);
  ::close(ends[0]);
  return Error{ErrorCode::kUnavailable, "cannot start " + program + ": " + std::strerror(code)};
}

ChildProcessGuard::ChildProcessGuard(ChildProcessGuard&& other) noexcept
    : pid_(std::exchange(other.pid_, 0)), socket_(std::exchange(other.socket_, -1)) {}

ChildProcessGuard::~ChildProcessGuard() {
  if (pid_ == 0) return;
  ::close(socket_);
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

void ChildProcessGuard::tell(char what, pid_t group) {
  const std::string line = what + std::to_string(group) + "\n";
  // A guard that somebody killed is missed only if we are killed too.
  [[maybe_unused]] const ssize_t sent = ::send(socket_, line.data(), line.size(), MSG_NOSIGNAL);
}

}  // namespace bulkhead
