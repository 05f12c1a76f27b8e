// Descriptors that go from one process to another over a connected local
// socket (AF_UNIX, SOCK_SEQPACKET), by SCM_RIGHTS.
//
// What comes is close-on-exec and closes itself.  Nothing here waits, and
// nothing is trusted: a packet or its descriptors that were cut off make the
// packet malformed, and what came of it is closed.  Any thread.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/result.h"
#include "protocol/unique_fd.h"

namespace bulkhead {

inline constexpr std::size_t kMaxPassedFds = 253;  // the kernel's SCM_MAX_FD

// One packet.  `bytes` is not empty: an empty packet looks like the end.  The
// caller keeps the descriptors, the peer gets its own.  kUnavailable when the
// peer has gone or does not read.
Status send_fds(int socket, std::string_view bytes, std::span<const int> fds);

struct ReceivedFds {
  enum class Kind { kPacket, kNothingYet, kEnd };
  Kind kind = Kind::kNothingYet;
  std::string bytes;
  std::vector<UniqueFd> fds;
};

// The next packet: at most `max_bytes` and exactly `count` descriptors, else
// kMalformed.  kEnd once the peer has gone and all its packets were read.
Result<ReceivedFds> receive_fds(int socket, std::size_t max_bytes, std::size_t count);

}  // namespace bulkhead
