#include "protocol/local_listener.h"

#include <unistd.h>
#include <utility>

#include <spdlog/spdlog.h>

#include "protocol/local_socket.h"

namespace bulkhead {

Result<std::unique_ptr<LocalListener>> LocalListener::open(EventLoop& loop, const std::string& path,
                                                           std::function<void(UniqueFd)> on_peer) {
  Result<UniqueFd> socket = listen_local(path);
  if (!socket) return socket.error();
  return std::unique_ptr<LocalListener>(
      new LocalListener(loop, *std::move(socket), path, std::move(on_peer)));
}

LocalListener::LocalListener(EventLoop& loop, UniqueFd socket, std::string path,
                             std::function<void(UniqueFd)> on_peer)
    : socket_(std::move(socket)), path_(std::move(path)), on_peer_(std::move(on_peer)) {
  watch_ = loop.watch_readable(socket_.get(), [this] { ready(); });
}

LocalListener::~LocalListener() { stop(); }

void LocalListener::ready() {
  Result<UniqueFd> peer = accept_local(socket_);
  if (!peer) return spdlog::warn("a peer at {} is turned away: {}", path_, peer.error().message);
  if (!*peer) return;
  stop();
  const auto on_peer = std::move(on_peer_);  // the callee may destroy this listener
  on_peer(*std::move(peer));
}

void LocalListener::stop() {
  if (!socket_) return;
  watch_.reset();
  socket_.reset();
  ::unlink(path_.c_str());
}

}  // namespace bulkhead
