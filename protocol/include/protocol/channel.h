// A connection to one peer: messages in, messages out.
//
// Used only on its loop's thread, and never longer than its loop (for a memory
// channel: both loops).  send() never blocks.  A channel calls on_message for
// each message and then on_closed exactly once, after which it is silent;
// destroying it calls nothing, and a handler may do that.  It knows nothing of
// handshakes and generations: its owner does.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "protocol/codec.h"
#include "protocol/event_loop.h"
#include "protocol/messages.h"
#include "protocol/result.h"

namespace bulkhead {

class Channel {
 public:
  struct Handlers {
    std::function<void(Message)> on_message;
    std::function<void(Error)> on_closed;
  };

  virtual ~Channel() = default;

  // Begins to deliver; call once.  Messages that came before are kept.
  virtual void start(Handlers handlers) = 0;

  // Queues a message.  After closing, or to a peer that has gone, it is
  // dropped; on_closed says so, once.
  virtual void send(const Message& message) = 0;

  // From here on bytes in shared memory are named, both ways; before start() or
  // in a handler.  `places` outlives the channel or is replaced by nullptr.
  virtual void share(Places* places) = 0;

  // Idempotent, does not wait; on_closed follows from the loop, no message does.
  // What has not left this process yet may be lost.
  virtual void close() = 0;
};

// A pair in one process, each end on its own loop.  Messages pass through the
// codec all the same.
std::pair<std::unique_ptr<Channel>, std::unique_ptr<Channel>> memory_channels(EventLoop& left,
                                                                              EventLoop& right);

// The connecting side (DEALER).  The peer may appear later; messages wait.
// Closes when its connection breaks: the listener or its process has ended.
Result<std::unique_ptr<Channel>> connect_channel(EventLoop& loop, const std::string& endpoint);

// The listening side (ROUTER).  Destroying it closes its channels.  A channel
// of it notices at its next send that the peer has gone; closing one is not
// seen by the peer.
class Listener {
 public:
  class Router;  // zeromq_channel.cpp
  explicit Listener(std::unique_ptr<Router> router);
  ~Listener();
  // What to connect to, with the real port where ":*" was asked for.
  const std::string& endpoint() const;

 private:
  std::unique_ptr<Router> router_;
};

struct ListenOptions {
  // Take one peer only: after its first message the path is unlinked and
  // others are ignored.
  bool one_peer = false;
};

// Calls on_peer with a channel when a new peer's first message has arrived;
// the callee starts it.  ipc:// endpoints let in this user's processes only.
Result<std::unique_ptr<Listener>> listen_channel(EventLoop& loop, const std::string& endpoint,
                                                 ListenOptions options,
                                                 std::function<void(std::unique_ptr<Channel>)> on_peer);

}  // namespace bulkhead
