#include <utility>

#include "protocol/local_socket.h"
#include "protocol/ring_channel.h"

namespace bulkhead {

Result<std::unique_ptr<LocalListener>> ring_listen(
    EventLoop& loop, const std::string& path, RingOptions options,
    std::function<void(Result<std::unique_ptr<Channel>>)> on_peer) {
  return LocalListener::open(loop, path, [&loop, options, on_peer = std::move(on_peer)](UniqueFd socket) {
    on_peer(ring_channel(loop, std::move(socket), options));
  });
}

Result<std::unique_ptr<Channel>> ring_connect(EventLoop& loop, const std::string& path, RingOptions options) {
  Result<UniqueFd> socket = connect_local(path);
  if (!socket) return socket.error();
  return ring_channel(loop, *std::move(socket), options);
}

}  // namespace bulkhead
