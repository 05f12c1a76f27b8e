// What cleans up after kill -9 of the coordinator: a process that does nothing
// but know our process groups and the directory of our sockets.
//
// The parent-death signal ends our children; this ends what *they* started.
// Used on the loop's thread.
#pragma once

#include <filesystem>
#include <sys/types.h>

#include "protocol/result.h"

namespace bulkhead {

class ChildProcessGuard {
 public:
  // Starts it.  It removes `directory` after our end, whatever that was.
  static Result<ChildProcessGuard> start(const std::filesystem::path& shim,
                                         const std::filesystem::path& directory);

  ChildProcessGuard(ChildProcessGuard&& other) noexcept;
  ChildProcessGuard& operator=(ChildProcessGuard&&) = delete;
  // Lets it end, and reaps it.
  ~ChildProcessGuard();

  pid_t pid() const { return pid_; }
  // The group was started; it has ended and been reaped.
  void add(pid_t group) { tell('+', group); }
  void remove(pid_t group) { tell('-', group); }

 private:
  ChildProcessGuard(pid_t pid, int socket) : pid_(pid), socket_(socket) {}
  void tell(char what, pid_t group);

  pid_t pid_;
  int socket_;
};

}  // namespace bulkhead
