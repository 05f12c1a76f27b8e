#include "protocol/local_socket.h"

#include <cerrno>
#include <cstring>
#include <optional>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

namespace bulkhead {
namespace {

constexpr int kType = SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK;
constexpr int kBacklog = 16;

Error path_error(const char* doing, const std::string& path, int code) {
  return {ErrorCode::kUnavailable, std::string("cannot ") + doing + " " + path + ": " + std::strerror(code)};
}

std::optional<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) return std::nullopt;
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

// The peer's user, as it was when it connected or began to listen.
Status same_user(int socket) {
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
    return Error{ErrorCode::kUnavailable,
                 std::string("the peer's user is not known: ") + std::strerror(errno)};
  if (peer.uid == ::geteuid()) return ok_status();
  return Error{ErrorCode::kMismatch, "a process of user " + std::to_string(peer.uid) +
                                         " is at the other end; this run's is " +
                                         std::to_string(::geteuid())};
}

}  // namespace

Result<UniqueFd> listen_local(const std::string& path) {
  const std::optional<sockaddr_un> address = address_of(path);
  if (!address) return path_error("listen at", path, ENAMETOOLONG);
  UniqueFd socket(::socket(AF_UNIX, kType, 0));
  // Before it has a name: the file gets this mode, less the umask.
  if (!socket || ::fchmod(socket.get(), 0600) != 0 ||
      ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0)
    return path_error("listen at", path, errno);
  if (::listen(socket.get(), kBacklog) != 0) {
    const int code = errno;
    ::unlink(path.c_str());
    return path_error("listen at", path, code);
  }
  return socket;
}

Result<UniqueFd> accept_local(const UniqueFd& listener) {
  for (;;) {
    UniqueFd socket(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno == EAGAIN) return UniqueFd();
      return Error{ErrorCode::kUnavailable, std::string("cannot take a peer in: ") + std::strerror(errno)};
    }
    if (const Status same = same_user(socket.get()); !same) return same.error();
    return socket;
  }
}

Result<UniqueFd> connect_local(const std::string& path) {
  const std::optional<sockaddr_un> address = address_of(path);
  if (!address) return path_error("connect to", path, ENAMETOOLONG);
  UniqueFd socket(::socket(AF_UNIX, kType, 0));
  if (!socket) return path_error("connect to", path, errno);
  while (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0) {
    if (errno != EINTR) return path_error("connect to", path, errno);
  }
  if (const Status same = same_user(socket.get()); !same) return same.error();
  return socket;
}

Result<std::pair<UniqueFd, UniqueFd>> local_pair() {
  int fds[2];
  if (::socketpair(AF_UNIX, kType, 0, fds) != 0)
    return Error{ErrorCode::kUnavailable, std::string("cannot make a socket pair: ") + std::strerror(errno)};
  return std::pair(UniqueFd(fds[0]), UniqueFd(fds[1]));
}

}  // namespace bulkhead
