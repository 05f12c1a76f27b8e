#include "rendezvous.h"

#include <cerrno>
#include <cstring>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "torch_error.h"

namespace bulkhead {
namespace {

struct Listener {
  int fd = -1;
  std::uint16_t port = 0;
};

std::string name_of(const std::string& address, std::uint16_t port) {
  return address + ":" + std::to_string(port);
}

Error cannot_listen(const std::string& address, std::uint16_t port, const std::string& why) {
  return Error{ErrorCode::kUnavailable, "cannot listen on " + name_of(address, port) + ": " + why};
}

// A listening socket of our own: TCPStore's would listen on every interface.
Result<Listener> listen_on(const std::string& address, std::uint16_t port) {
  addrinfo hints{};
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int code = getaddrinfo(address.c_str(), nullptr, &hints, &found); code != 0) {
    return cannot_listen(address, port, gai_strerror(code));
  }
  sockaddr_in where{};
  std::memcpy(&where, found->ai_addr, sizeof where);
  freeaddrinfo(found);
  where.sin_port = htons(port);

  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  socklen_t size = sizeof where;
  if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
      bind(fd, reinterpret_cast<const sockaddr*>(&where), sizeof where) != 0 || listen(fd, SOMAXCONN) != 0 ||
      getsockname(fd, reinterpret_cast<sockaddr*>(&where), &size) != 0) {
    const int code = errno;
    if (fd >= 0) close(fd);
    return cannot_listen(address, port, code == EADDRINUSE ? "the port is in use" : std::strerror(code));
  }
  return Listener{fd, ntohs(where.sin_port)};
}

}  // namespace

struct Rendezvous::State {
  c10::intrusive_ptr<c10d::TCPStore> store;
};

Result<Rendezvous> Rendezvous::host(const std::string& address, std::uint16_t port,
                                    std::chrono::milliseconds timeout) {
  Result<Listener> listener = listen_on(address, port);
  if (!listener) return listener.error();
  const std::string doing = "hosting the rendezvous on " + name_of(address, listener->port);
  return catching(doing, ErrorCode::kUnavailable, [&]() -> Result<Rendezvous> {
    c10d::TCPStoreOptions options;
    options.port = listener->port;
    options.isServer = true;
    options.waitWorkers = false;
    options.timeout = timeout;
    options.masterListenFd = listener->fd;
    return Rendezvous(std::make_shared<State>(State{c10::make_intrusive<c10d::TCPStore>(address, options)}));
  });
}

Result<Rendezvous> Rendezvous::connect(const std::string& address, std::uint16_t port,
                                       std::chrono::milliseconds timeout) {
  const std::string doing = "connecting to the rendezvous at " + name_of(address, port);
  return catching(doing, ErrorCode::kUnavailable, [&]() -> Result<Rendezvous> {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.timeout = timeout;
    return Rendezvous(std::make_shared<State>(State{c10::make_intrusive<c10d::TCPStore>(address, options)}));
  });
}

std::uint16_t Rendezvous::port() const { return state_ ? state_->store->getPort() : 0; }

c10::intrusive_ptr<c10d::Store> Rendezvous::store() const {
  if (!state_) return {};
  return state_->store;
}

}  // namespace bulkhead
