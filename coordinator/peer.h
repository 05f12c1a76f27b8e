// The process at the other end of a control connection, from its first message
// on.
//
// The one place where messages of a stale generation are dropped and counted.
// Knows no message but by its generation.  Used on the loop's thread; a handler
// may destroy the Peer that called it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "protocol/channel.h"
#include "protocol/event_loop.h"
#include "protocol/ids.h"
#include "protocol/messages.h"

namespace bulkhead {

class Peer {
 public:
  // Begins to deliver everything to `handlers`.
  Peer(EventLoop& loop, std::unique_ptr<Channel> channel, Channel::Handlers handlers);
  // Closes the connection; calls nothing.
  ~Peer();
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  // It has been greeted: from the next message on only those of `generation`
  // are delivered; each other one adds 1 to `stale`, which outlives this.
  void become(Generation generation, Channel::Handlers handlers, std::int64_t& stale);

  // Stamped with the peer's generation, so that a message meant for an older
  // incarnation is known as such.
  template <class Body>
  void send(Body body) {
    body.generation = state_->generation;
    channel_->send(Message{std::move(body)});
  }

 private:
  struct State {
    Generation generation;
    std::int64_t* stale = nullptr;  // null before become()
    Channel::Handlers handlers;
  };

  EventLoop& loop_;
  std::unique_ptr<Channel> channel_;
  std::shared_ptr<State> state_;  // the channel's callbacks hold it weakly
};

}  // namespace bulkhead
