// What the kinds of channel have in common: decoding, delivery in order also of
// what came before start(), and the one on_closed.
//
// It owns no connection: the classes derived from it call arrived() and end(),
// and give their connection up in release().  On its loop's thread only.
#pragma once

#include <deque>
#include <memory>
#include <utility>

#include "protocol/channel.h"
#include "protocol/codec.h"

namespace bulkhead {

class BaseChannel : public Channel {
 public:
  explicit BaseChannel(EventLoop& loop) : loop_(loop) {}

  void start(Handlers handlers) override {
    CHECK(loop_.in_loop());
    handlers_ = std::make_shared<Handlers>(std::move(handlers));
    loop_.post([alive = std::weak_ptr<bool>(alive_), this] {
      if (!alive.expired()) deliver_early();
    });
  }

  void share(Places* places) override { places_ = places; }

  void close() override {
    early_.clear();
    end({ErrorCode::kUnavailable, "closed on this side"});
  }

 protected:
  bool closed() const { return closed_; }

  // The frames are done with when it returns.
  void arrived(const Frames& frames) {
    Result<Message> message = decode(frames, places_);
    if (!message) return end(message.error());
    if (handlers_ && early_.empty()) return hand_over(std::move(*message));
    early_.push_back(std::move(*message));
  }

  // Reports the end from the loop, so never from inside send().
  void end(Error why) {
    if (std::exchange(closed_, true)) return;
    reason_ = std::move(why);
    release();
    loop_.post([alive = std::weak_ptr<bool>(alive_), this] {
      if (!alive.expired()) deliver_early();
    });
  }

  virtual void release() {}

  Frames framed(const Message& message) const { return encode(message, places_); }

  EventLoop& loop_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);

 private:
  // What came before start(), then the end if that came too.
  void deliver_early() {
    if (!handlers_) return;
    const std::weak_ptr<bool> alive = alive_;
    while (!early_.empty()) {
      Message message = std::move(early_.front());
      early_.pop_front();
      hand_over(std::move(message));
      if (alive.expired()) return;
    }
    if (closed_) report_end();
  }

  // Holds the handlers: the callee may destroy this channel.
  void hand_over(Message&& message) {
    const std::shared_ptr<Handlers> handlers = handlers_;
    handlers->on_message(std::move(message));
  }

  void report_end() {
    if (!handlers_->on_closed) return;
    const auto on_closed = std::exchange(handlers_->on_closed, nullptr);
    on_closed(Error(reason_));
  }

  Places* places_ = nullptr;
  std::shared_ptr<Handlers> handlers_;
  std::deque<Message> early_;
  bool closed_ = false;
  Error reason_;
};

}  // namespace bulkhead
