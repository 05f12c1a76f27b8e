#include "peer.h"

namespace bulkhead {

Peer::Peer(EventLoop& loop, std::unique_ptr<Channel> channel, Channel::Handlers handlers)
    : loop_(loop), channel_(std::move(channel)), state_(std::make_shared<State>()) {
  state_->handlers = std::move(handlers);
  const std::weak_ptr<State> weak = state_;
  channel_->start({
      .on_message =
          [weak](Message message) {
            const auto state = weak.lock();
            if (!state) return;
            if (state->stale != nullptr && generation_of(message) != state->generation) {
              ++*state->stale;
              return;
            }
            const auto handler = state->handlers.on_message;  // become() may replace it meanwhile
            handler(std::move(message));
          },
      .on_closed =
          [weak](Error why) {
            const auto state = weak.lock();
            if (!state) return;
            const auto handler = state->handlers.on_closed;
            handler(std::move(why));
          },
  });
}

// The channel may be calling us right now: it goes at the loop's next turn.
Peer::~Peer() {
  channel_->close();
  loop_.post([channel = std::shared_ptr<Channel>(std::move(channel_))] {});
}

void Peer::become(Generation generation, Channel::Handlers handlers, std::int64_t& stale) {
  state_->generation = generation;
  state_->handlers = std::move(handlers);
  state_->stale = &stale;
}

}  // namespace bulkhead
