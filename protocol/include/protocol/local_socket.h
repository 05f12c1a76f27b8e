// Local sockets between two processes of one user on one machine: AF_UNIX,
// SOCK_SEQPACKET, close-on-exec, never blocking.  What goes over them is
// fd_passing.h's.  Any thread.
#pragma once

#include <string>
#include <utility>

#include "protocol/result.h"
#include "protocol/unique_fd.h"

namespace bulkhead {

// Listens at `path`, which must not exist; mode 0600.  The caller unlinks it.
Result<UniqueFd> listen_local(const std::string& path);

// The next peer of a listening socket; none (an empty UniqueFd) when nobody
// waits.  kMismatch for a process of another user (SO_PEERCRED): that one is
// closed, the next may be asked for.
Result<UniqueFd> accept_local(const UniqueFd& listener);

// kUnavailable when nobody listens there, kMismatch when another user does.
Result<UniqueFd> connect_local(const std::string& path);

// Both ends; one is for a child.
Result<std::pair<UniqueFd, UniqueFd>> local_pair();

}  // namespace bulkhead
