#include <unistd.h>
#include <utility>

#include <spdlog/spdlog.h>

#include "protocol/local_socket.h"
#include "protocol/ring_channel.h"

namespace bulkhead {

RingListener::RingListener(EventLoop& loop, UniqueFd socket, std::string path, RingOptions options,
                           OnPeer on_peer)
    : loop_(loop),
      socket_(std::move(socket)),
      path_(std::move(path)),
      options_(options),
      on_peer_(std::move(on_peer)) {
  watch_ = loop_.watch_readable(socket_.get(), [this] { ready(); });
}

RingListener::~RingListener() { stop(); }

void RingListener::ready() {
  Result<UniqueFd> socket = accept_local(socket_);
  if (!socket) {
    spdlog::warn("a peer at {} is turned away: {}", path_, socket.error().message);
    return;
  }
  if (!*socket) return;
  stop();
  const OnPeer on_peer = std::move(on_peer_);  // the callee may destroy this listener
  on_peer(ring_channel(loop_, *std::move(socket), options_));
}

void RingListener::stop() {
  if (!socket_) return;
  watch_.reset();
  socket_.reset();
  ::unlink(path_.c_str());
}

Result<std::unique_ptr<RingListener>> ring_listen(EventLoop& loop, const std::string& path,
                                                  RingOptions options, RingListener::OnPeer on_peer) {
  Result<UniqueFd> socket = listen_local(path);
  if (!socket) return socket.error();
  return std::make_unique<RingListener>(loop, *std::move(socket), path, options, std::move(on_peer));
}

Result<std::unique_ptr<Channel>> ring_connect(EventLoop& loop, const std::string& path, RingOptions options) {
  Result<UniqueFd> socket = connect_local(path);
  if (!socket) return socket.error();
  return ring_channel(loop, *std::move(socket), options);
}

}  // namespace bulkhead
