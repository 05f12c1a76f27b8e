#include <utility>

#include "base_channel.h"

namespace bulkhead {
namespace {

class MemoryChannel final : public BaseChannel {
 public:
  using BaseChannel::BaseChannel;
  ~MemoryChannel() override { hang_up(); }

  void join(MemoryChannel& peer) {
    peer_ = &peer;
    peer_alive_ = peer.alive_;
    peer_loop_ = &peer.loop_;
  }

  void send(const Message& message) override {
    CHECK(loop_.in_loop());
    if (closed()) return;
    peer_loop_->post([peer = peer_, alive = peer_alive_, frames = framed(message)] {
      if (alive.expired() || peer->closed()) return;
      peer->arrived(frames);
    });
  }

 private:
  void release() override { hang_up(); }
  void hang_up() {
    if (peer_ == nullptr) return;
    peer_loop_->post([peer = std::exchange(peer_, nullptr), alive = peer_alive_] {
      if (!alive.expired()) peer->end({ErrorCode::kUnavailable, "the peer has closed"});
    });
  }

  MemoryChannel* peer_ = nullptr;
  std::weak_ptr<bool> peer_alive_;
  EventLoop* peer_loop_ = nullptr;
};

}  // namespace

std::pair<std::unique_ptr<Channel>, std::unique_ptr<Channel>> memory_channels(EventLoop& left,
                                                                              EventLoop& right) {
  auto a = std::make_unique<MemoryChannel>(left);
  auto b = std::make_unique<MemoryChannel>(right);
  a->join(*b);
  b->join(*a);
  return {std::move(a), std::move(b)};
}

}  // namespace bulkhead
