// The third kind of channel: two rings in shared memory and two eventfds,
// between two processes of one user on one machine (README.md, "Ring").
//
// Both sides are alike.  They exchange their descriptors over a local socket
// that stays open: its end is the end of the channel, after what the peer had
// sent.  On the loop's thread only, and never blocking; a lying peer closes the
// channel with kMalformed.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "protocol/channel.h"
#include "protocol/event_loop.h"
#include "protocol/local_listener.h"
#include "protocol/result.h"
#include "protocol/unique_fd.h"

namespace bulkhead {

struct RingOptions {
  // Of the ring that this side sends through: a power of two from 4 KiB to
  // 64 MiB.  Larger messages pass in pieces; a small ring costs wake-ups.
  std::size_t bytes = std::size_t{1} << 20;
};

// Over a connected socket (local_socket.h).  Messages sent before the peer's
// descriptors have come are kept.  kUnavailable where there is no memory or the
// peer has gone already.
Result<std::unique_ptr<Channel>> ring_channel(EventLoop& loop, UniqueFd socket, RingOptions options = {});

// To a listener of this user; kUnavailable when nobody listens there yet.
Result<std::unique_ptr<Channel>> ring_connect(EventLoop& loop, const std::string& path,
                                              RingOptions options = {});

// Calls on_peer once, from the loop, with the channel of the first process of
// this user that connects, or with why it could not be made; the callee starts
// it and may destroy the listener.
Result<std::unique_ptr<LocalListener>> ring_listen(
    EventLoop& loop, const std::string& path, RingOptions options,
    std::function<void(Result<std::unique_ptr<Channel>>)> on_peer);

}  // namespace bulkhead
