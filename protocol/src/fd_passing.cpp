#include "protocol/fd_passing.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <sys/socket.h>
#include <utility>

namespace bulkhead {
namespace {

// Room for every descriptor that the kernel passes at once, aligned as cmsghdr
// has to be.
struct ControlBuffer {
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kMaxPassedFds * sizeof(int))> bytes{};
};

Error socket_error(const char* doing) {
  return {ErrorCode::kUnavailable, std::string("cannot ") + doing + ": " + std::strerror(errno)};
}

// Everything that came, so that nothing stays open.
std::vector<UniqueFd> take_fds(msghdr& header) {
  std::vector<UniqueFd> fds;
  for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr; part = CMSG_NXTHDR(&header, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof fd);
      fds.emplace_back(fd);
    }
  }
  return fds;
}

}  // namespace

Status send_fds(int socket, std::string_view bytes, std::span<const int> fds) {
  CHECK(!bytes.empty() && fds.size() <= kMaxPassedFds);
  iovec data{const_cast<char*>(bytes.data()), bytes.size()};
  ControlBuffer control;
  msghdr header{};
  header.msg_iov = &data;
  header.msg_iovlen = 1;
  if (!fds.empty()) {
    header.msg_control = control.bytes.data();
    header.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
    cmsghdr* part = CMSG_FIRSTHDR(&header);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    std::memcpy(CMSG_DATA(part), fds.data(), fds.size() * sizeof(int));
  }
  while (::sendmsg(socket, &header, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
    if (errno == EAGAIN) return Error{ErrorCode::kUnavailable, "the peer does not read what is passed to it"};
    if (errno == EPIPE || errno == ECONNRESET) return Error{ErrorCode::kUnavailable, "the peer has gone"};
    if (errno != EINTR) return socket_error("pass descriptors");
  }
  return ok_status();
}

Result<ReceivedFds> receive_fds(int socket, std::size_t max_bytes, std::size_t count) {
  CHECK(max_bytes > 0 && count <= kMaxPassedFds);
  ReceivedFds received;
  received.bytes.resize(max_bytes);
  iovec data{received.bytes.data(), max_bytes};
  ControlBuffer control;
  msghdr header{};
  ssize_t size = -1;
  for (bool again = true; again;) {
    header = {};
    header.msg_iov = &data;
    header.msg_iovlen = 1;
    header.msg_control = control.bytes.data();
    header.msg_controllen = control.bytes.size();
    size = ::recvmsg(socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    // A peer that closes before it has read everything leaves an error in
    // front of what it has sent; read once, it is gone.
    again = size < 0 && (errno == EINTR || errno == ECONNRESET);
  }
  if (size < 0 && errno == EAGAIN) return ReceivedFds{};
  if (size < 0) return socket_error("receive descriptors");
  received.fds = take_fds(header);
  if (size == 0 && received.fds.empty()) return ReceivedFds{ReceivedFds::Kind::kEnd, {}, {}};
  if ((header.msg_flags & MSG_TRUNC) != 0) {
    return Error{ErrorCode::kMalformed, "a packet of more than " + std::to_string(max_bytes) + " bytes came"};
  }
  if ((header.msg_flags & MSG_CTRUNC) != 0) {
    return Error{ErrorCode::kMalformed, "descriptors were lost on the way: this process may open no more"};
  }
  if (received.fds.size() != count) {
    return Error{ErrorCode::kMalformed, std::to_string(received.fds.size()) +
                                            " descriptors came where there should be " +
                                            std::to_string(count)};
  }
  received.bytes.resize(static_cast<std::size_t>(size));
  received.kind = ReceivedFds::Kind::kPacket;
  return received;
}

}  // namespace bulkhead
