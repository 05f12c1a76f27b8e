// The kinds of channel, each joined for a test: what the one contract suite
// runs over.  The left end is the connecting side, the right end the listening
// side.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "protocol/channel.h"
#include "protocol/local_socket.h"
#include "protocol/ring_channel.h"
#include "support/started_process.h"
#include "support/temporary_directory.h"

namespace bulkhead {

struct Ends {
  std::unique_ptr<StartedProcess> between;  // ends when both ends have
  std::unique_ptr<Listener> listener;       // ZeroMQ only
  std::unique_ptr<Channel> left;
  std::unique_ptr<Channel> right;

  // As when the process of that side ends.
  void end_left() { left.reset(); }
  void end_right() {
    right.reset();
    listener.reset();
  }
};

// Ends between which the first message, from left to right, is under way or
// has come; nobody has been started.
using Join = Ends (*)(EventLoop& loop, const TemporaryDirectory& directory, const Message& first);

inline Ends join_memory(EventLoop& loop, const TemporaryDirectory&, const Message& first) {
  auto [left, right] = memory_channels(loop, loop);
  left->send(first);
  Ends ends;
  ends.left = std::move(left);
  ends.right = std::move(right);
  return ends;
}

inline Ends join_zeromq(EventLoop& loop, const std::string& endpoint, const Message& first) {
  Ends ends;
  auto listener = listen_channel(loop, endpoint, {},
                                 [&ends](std::unique_ptr<Channel> peer) { ends.right = std::move(peer); });
  CHECK(listener.ok(), listener.ok() ? "" : listener.error().message);
  auto left = connect_channel(loop, (*listener)->endpoint());
  CHECK(left.ok(), left.ok() ? "" : left.error().message);
  (*left)->send(first);
  CHECK(loop.run_until([&] { return ends.right != nullptr; }, loop.now() + std::chrono::seconds(30)));
  ends.listener = *std::move(listener);
  ends.left = *std::move(left);
  return ends;
}

inline Ends join_ipc(EventLoop& loop, const TemporaryDirectory& directory, const Message& first) {
  return join_zeromq(loop, "ipc://" + (directory.path() / "socket").string(), first);
}

inline Ends join_tcp(EventLoop& loop, const TemporaryDirectory&, const Message& first) {
  return join_zeromq(loop, "tcp://127.0.0.1:*", first);
}

inline Ends join_rings(EventLoop& loop, const TemporaryDirectory& directory, const Message& first,
                       RingOptions options) {
  Ends ends;
  const std::string path = (directory.path() / "ring").string();
  const auto listener = ring_listen(
      loop, path, options, [&ends](Result<std::unique_ptr<Channel>> peer) { ends.right = *std::move(peer); });
  CHECK(listener.ok(), listener.ok() ? "" : listener.error().message);
  auto left = ring_connect(loop, path, options);
  CHECK(left.ok(), left.ok() ? "" : left.error().message);
  (*left)->send(first);
  CHECK(loop.run_until([&] { return ends.right != nullptr; }, loop.now() + std::chrono::seconds(30)));
  ends.left = *std::move(left);
  return ends;
}

inline Ends join_ring(EventLoop& loop, const TemporaryDirectory& directory, const Message& first) {
  return join_rings(loop, directory, first, {});
}

// So small that nearly everything has to wait for room.
inline Ends join_small_ring(EventLoop& loop, const TemporaryDirectory& directory, const Message& first) {
  return join_rings(loop, directory, first, {.bytes = 4096});
}

inline Ends join_spinning_ring(EventLoop& loop, const TemporaryDirectory& directory, const Message& first) {
  loop.spin_for(std::chrono::microseconds(20));
  return join_ring(loop, directory, first);
}

// Another process passes on what it gets from either end: each of the rings is
// between two processes.
inline Ends join_through_a_process(EventLoop& loop, const TemporaryDirectory&, const Message& first) {
  auto left = local_pair();
  auto right = local_pair();
  CHECK(left.ok() && right.ok());
  Ends ends;
  ends.between = std::make_unique<StartedProcess>(
      std::vector<std::string>{BULKHEAD_BUILD_DIR "/tests/ring_peer", "relay", "3", "4"},
      std::vector<int>{left->second.get(), right->second.get()});
  auto near = ring_channel(loop, std::move(left->first));
  auto far = ring_channel(loop, std::move(right->first));
  CHECK(near.ok() && far.ok());
  (*near)->send(first);
  ends.left = *std::move(near);
  ends.right = *std::move(far);
  return ends;
}

}  // namespace bulkhead
