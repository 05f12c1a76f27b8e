#include <atomic>
#include <cerrno>
#include <cstring>
#include <deque>
#include <limits>
#include <map>
#include <unistd.h>
#include <utility>

#include <zmq.h>
#include <zmq.hpp>

#include "base_channel.h"

namespace bulkhead {
namespace {

constexpr int kMessagesPerTurn = 64;  // then other sockets get their turn

// One context per process; its I/O thread is libzmq's own.  Never destroyed:
// that would wait for open sockets, so that a plugin's exit() would hang.
zmq::context_t& context() {
  static zmq::context_t& instance = *new zmq::context_t(1);
  return instance;
}

void free_blob(void*, void* hint) { delete static_cast<Blob*>(hint); }

// Takes the blob's owner along: no byte is copied.
zmq::message_t to_zmq(const Blob& blob) {
  if (blob.size < 256) return zmq::message_t(blob.data, blob.size);
  return zmq::message_t(const_cast<std::byte*>(blob.data), blob.size, free_blob, new Blob(blob));
}

Blob from_zmq(zmq::message_t message) {
  auto owner = std::make_shared<zmq::message_t>(std::move(message));
  return {owner, static_cast<const std::byte*>(owner->data()), owner->size()};
}

void set_common_options(zmq::socket_t& socket) {
  socket.set(zmq::sockopt::linger, 0);
  socket.set(zmq::sockopt::immediate, true);
  socket.set(zmq::sockopt::maxmsgsize, static_cast<std::int64_t>(kMaxFrameBytes));
  socket.set(zmq::sockopt::sndhwm, 0);
  socket.set(zmq::sockopt::rcvhwm, 0);
}

enum class Sent { kYes, kLater, kGone };

Sent send_part(zmq::socket_t& socket, zmq::message_t part, int more) {
  while (zmq_msg_send(part.handle(), socket.handle(), more | ZMQ_DONTWAIT) < 0) {
    if (errno == EAGAIN) return Sent::kLater;
    if (errno != EINTR) return Sent::kGone;  // EHOSTUNREACH: MANDATORY and the peer has gone
  }
  return Sent::kYes;
}

// All frames or none: ZeroMQ queues a multipart message as a whole, and only
// its first part can be refused.
Sent send_frames(zmq::socket_t& socket, const std::string* identity, const Frames& frames) {
  if (identity != nullptr) {
    const Sent sent = send_part(socket, zmq::message_t(identity->data(), identity->size()), ZMQ_SNDMORE);
    if (sent != Sent::kYes) return sent;
  }
  for (std::size_t i = 0; i < frames.size(); ++i) {
    const Sent sent = send_part(socket, to_zmq(frames[i]), i + 1 < frames.size() ? ZMQ_SNDMORE : 0);
    if (sent != Sent::kYes) return sent;
  }
  return Sent::kYes;
}

bool receive_part(zmq::socket_t& socket, zmq::message_t& part) {
  while (zmq_msg_recv(part.handle(), socket.handle(), ZMQ_DONTWAIT) < 0) {
    if (errno == EAGAIN) return false;
    CHECK(errno == EINTR, zmq_strerror(errno));
  }
  return true;
}

// The frames of the next message; false when there is none.  With `identity`
// the first part goes there.  The parts of a message arrive together.
bool receive_frames(zmq::socket_t& socket, std::string* identity, Frames& frames) {
  frames.clear();
  for (bool first = true;; first = false) {
    zmq::message_t part;
    const bool got = receive_part(socket, part);
    if (first && !got) return false;
    CHECK(got, "a message without its last part");
    const bool more = part.more();
    if (first && identity != nullptr) {
      *identity = part.to_string();
    } else {
      frames.push_back(from_zmq(std::move(part)));
    }
    if (!more) return true;
  }
}

// A socket that becomes readable when a connection of `socket` breaks.
zmq::socket_t watch_connection(zmq::socket_t& socket) {
  static std::atomic<int> count{0};
  const std::string address = "inproc://connection-" + std::to_string(++count);
  if (zmq_socket_monitor(socket.handle(), address.c_str(), ZMQ_EVENT_DISCONNECTED) != 0) throw zmq::error_t();
  zmq::socket_t events(context(), zmq::socket_type::pair);
  events.set(zmq::sockopt::linger, 0);
  events.connect(address);
  return events;
}

class DealerChannel final : public BaseChannel {
 public:
  ~DealerChannel() override { release(); }
  DealerChannel(EventLoop& loop, zmq::socket_t socket, zmq::socket_t events)
      : BaseChannel(loop), socket_(std::move(socket)), events_(std::move(events)) {
    watch_ = loop_.watch_socket(
        socket_.handle(), [this] { return !outbox_.empty(); }, [this] { ready(); });
    events_watch_ = loop_.watch_socket(events_.handle(), {}, [this] { connection_broke(); });
  }

  void send(const Message& message) override {
    CHECK(loop_.in_loop());
    if (closed()) return;
    outbox_.push_back(framed(message));
    flush();
    watch_.look_again();
  }

 private:
  void flush() {
    while (!outbox_.empty() && send_frames(socket_, nullptr, outbox_.front()) == Sent::kYes)
      outbox_.pop_front();
  }

  void ready() {
    flush();
    receive(kMessagesPerTurn);
  }

  // A peer does not come back: another incarnation has another endpoint.  What
  // it has sent is there by now.
  void connection_broke() {
    const std::weak_ptr<bool> alive = alive_;
    receive(std::numeric_limits<int>::max());
    if (!alive.expired()) end({ErrorCode::kUnavailable, "the peer has gone"});
  }

  void receive(int most) {
    const std::weak_ptr<bool> alive = alive_;
    Frames frames;
    for (int i = 0; i < most && receive_frames(socket_, nullptr, frames); ++i) {
      arrived(frames);
      if (alive.expired() || closed()) return;
    }
  }

  void release() override {
    watch_.reset();
    events_watch_.reset();
    if (!socket_) return;
    // First of all: with nobody at the other end of `events_`, libzmq's I/O
    // thread would wait there for ever (zeromq/libzmq#3575).
    zmq_socket_monitor(socket_.handle(), nullptr, 0);
    events_.close();
    socket_.close();
  }

  zmq::socket_t socket_;
  zmq::socket_t events_;
  std::deque<Frames> outbox_;  // until the connection stands
  EventLoop::Handle watch_;
  EventLoop::Handle events_watch_;
};

using Router = Listener::Router;

class RouterChannel final : public BaseChannel {
 public:
  RouterChannel(EventLoop& loop, Router& listener, std::string identity)
      : BaseChannel(loop), listener_(&listener), identity_(std::move(identity)) {}
  ~RouterChannel() override { release(); }

  void send(const Message& message) override;
  void receive(const Frames& frames) { arrived(frames); }
  // The listener is gone.
  void orphan() {
    listener_ = nullptr;
    end({ErrorCode::kUnavailable, "the listener has closed"});
  }

 private:
  void release() override;
  Router* listener_;
  std::string identity_;
};

}  // namespace

class Listener::Router {
 public:
  Router(EventLoop& loop, zmq::socket_t socket, ListenOptions options,
         std::function<void(std::unique_ptr<Channel>)> on_peer)
      : loop_(loop), socket_(std::move(socket)), options_(options), on_peer_(std::move(on_peer)) {
    endpoint_ = socket_.get(zmq::sockopt::last_endpoint);
    watch_ = loop_.watch_socket(socket_.handle(), {}, [this] { ready(); });
  }
  ~Router() {
    for (auto& [identity, channel] : std::exchange(channels_, {})) channel->orphan();
    unlink_path();
  }

  Router(const Router&) = delete;
  Router& operator=(const Router&) = delete;

  const std::string& endpoint() const { return endpoint_; }
  bool send(const std::string& identity, const Frames& frames) {
    const Sent sent = send_frames(socket_, &identity, frames);
    watch_.look_again();
    return sent == Sent::kYes;
  }
  void forget(const std::string& identity) { channels_.erase(identity); }

 private:
  void ready() {
    const std::weak_ptr<bool> alive = alive_;
    std::string identity;
    Frames frames;
    for (int i = 0; i < kMessagesPerTurn && receive_frames(socket_, &identity, frames); ++i) {
      if (RouterChannel* channel = channel_of(identity)) channel->receive(frames);
      if (alive.expired()) return;
    }
  }

  // The channel of a peer, made at its first message; nullptr for a peer that
  // may not come, or whose channel was closed here.
  RouterChannel* channel_of(const std::string& identity) {
    if (const auto found = channels_.find(identity); found != channels_.end()) return found->second;
    if (!known_.emplace(identity, true).second) return nullptr;
    if (options_.one_peer && known_.size() > 1) return nullptr;
    if (options_.one_peer) unlink_path();
    auto channel = std::make_unique<RouterChannel>(loop_, *this, identity);
    RouterChannel* raw = channel.get();
    channels_[identity] = raw;
    const std::weak_ptr<bool> alive = alive_;
    const auto on_peer = on_peer_;  // the callee may destroy this listener
    on_peer(std::move(channel));
    if (alive.expired()) return nullptr;
    const auto still = channels_.find(identity);  // the callee may have dropped it
    return still == channels_.end() ? nullptr : still->second;
  }

  void unlink_path() {
    if (endpoint_.starts_with("ipc://")) ::unlink(endpoint_.c_str() + std::strlen("ipc://"));
  }

  EventLoop& loop_;
  zmq::socket_t socket_;
  ListenOptions options_;
  std::function<void(std::unique_ptr<Channel>)> on_peer_;
  std::string endpoint_;
  std::map<std::string, RouterChannel*> channels_;
  std::map<std::string, bool> known_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  EventLoop::Handle watch_;
};

Listener::Listener(std::unique_ptr<Router> router) : router_(std::move(router)) {}
Listener::~Listener() = default;
const std::string& Listener::endpoint() const { return router_->endpoint(); }

void RouterChannel::send(const Message& message) {
  CHECK(loop_.in_loop());
  if (closed()) return;
  if (!listener_->send(identity_, framed(message))) end({ErrorCode::kUnavailable, "the peer has gone"});
}

void RouterChannel::release() {
  if (listener_ != nullptr) std::exchange(listener_, nullptr)->forget(identity_);
}

Result<std::unique_ptr<Channel>> connect_channel(EventLoop& loop, const std::string& endpoint) {
  try {
    zmq::socket_t socket(context(), zmq::socket_type::dealer);
    set_common_options(socket);
    socket.set(zmq::sockopt::reconnect_ivl, 1);
    zmq::socket_t events = watch_connection(socket);
    socket.connect(endpoint);
    return std::unique_ptr<Channel>(
        std::make_unique<DealerChannel>(loop, std::move(socket), std::move(events)));
  } catch (const zmq::error_t& error) {
    return Error{ErrorCode::kUnavailable, "cannot connect to " + endpoint + ": " + error.what()};
  }
}

Result<std::unique_ptr<Listener>> listen_channel(EventLoop& loop, const std::string& endpoint,
                                                 ListenOptions options,
                                                 std::function<void(std::unique_ptr<Channel>)> on_peer) {
  try {
    zmq::socket_t socket(context(), zmq::socket_type::router);
    set_common_options(socket);
    socket.set(zmq::sockopt::router_mandatory, true);
    if (endpoint.starts_with("ipc://")) {
      const uid_t user = ::geteuid();
      if (zmq_setsockopt(socket.handle(), ZMQ_IPC_FILTER_UID, &user, sizeof user) != 0) throw zmq::error_t();
    }
    socket.bind(endpoint);
    return std::make_unique<Listener>(
        std::make_unique<Router>(loop, std::move(socket), options, std::move(on_peer)));
  } catch (const zmq::error_t& error) {
    return Error{ErrorCode::kUnavailable, "cannot listen at " + endpoint + ": " + error.what()};
  }
}

}  // namespace bulkhead
