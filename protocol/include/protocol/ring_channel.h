// The third kind of channel: two rings in shared memory and two eventfds,
// between two processes of one user on one machine (README.md, "Ring").
//
// Both sides are alike.  They exchange their descriptors over a local socket
// that stays open: its end is the end of the channel, after what the peer had
// sent.  On the loop's thread only, and never blocking; a lying peer closes the
// channel with kMalformed.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "protocol/channel.h"
#include "protocol/event_loop.h"
#include "protocol/result.h"
#include "protocol/unique_fd.h"

namespace bulkhead {

struct RingOptions {
  // Of the ring that this side sends through: a power of two from 4 KiB to
  // 64 MiB.  Larger messages pass in pieces; a small ring costs wake-ups.
  std::size_t bytes = std::size_t{1} << 20;

  // How long to look for the next message before sleeping; at most 50 us.  It
  // takes 100 us off a call between idle CPUs and adds as much where both
  // processes share one, so only where cores are to spare.
  std::chrono::microseconds spin{0};
};
inline constexpr std::chrono::microseconds kMaxRingSpin{50};

// Over a connected socket (local_socket.h).  Messages sent before the peer's
// descriptors have come are kept.  kUnavailable where there is no memory or the
// peer has gone already.
Result<std::unique_ptr<Channel>> ring_channel(EventLoop& loop, UniqueFd socket, RingOptions options = {});

// To a listener of this user; kUnavailable when nobody listens there yet.
Result<std::unique_ptr<Channel>> ring_connect(EventLoop& loop, const std::string& path,
                                              RingOptions options = {});

// Waits for one peer.  Its path is unlinked when the peer has come, or when it
// is destroyed; the channel then lives without it.
class RingListener {
 public:
  using OnPeer = std::function<void(Result<std::unique_ptr<Channel>>)>;

  RingListener(EventLoop& loop, UniqueFd socket, std::string path, RingOptions options, OnPeer on_peer);
  ~RingListener();
  RingListener(const RingListener&) = delete;
  RingListener& operator=(const RingListener&) = delete;

  const std::string& path() const { return path_; }

 private:
  void ready();
  void stop();

  EventLoop& loop_;
  UniqueFd socket_;
  std::string path_;
  RingOptions options_;
  OnPeer on_peer_;
  EventLoop::Handle watch_;
};

// Calls on_peer once, from the loop, with the channel of the first process of
// this user that connects (others are turned away), or with why it could not
// be made; the callee starts it and may destroy the listener.
Result<std::unique_ptr<RingListener>> ring_listen(EventLoop& loop, const std::string& path,
                                                  RingOptions options, RingListener::OnPeer on_peer);

}  // namespace bulkhead
