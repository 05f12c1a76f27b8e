// A scripted process of a simulated run: what both fake workers and fake hosts
// are, a connection to the coordinator and all that came over it.
//
// One thread, the test's.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "process.h"
#include "protocol/channel.h"
#include "protocol/messages.h"

namespace bulkhead {

class FakeProcess {
 public:
  FakeProcess(ProcessKey key, std::unique_ptr<Channel> channel) : key_(key), channel_(std::move(channel)) {}
  FakeProcess(const FakeProcess&) = delete;
  FakeProcess& operator=(const FakeProcess&) = delete;

  const ProcessKey& key() const { return key_; }

  // Connects with a hello; `react` sees each message after it was recorded.
  void connect(Hello hello, std::function<void(const Message&)> react) {
    channel_->start({.on_message =
                         [this, react = std::move(react)](Message message) {
                           received_.push_back(message);
                           react(message);
                         },
                     .on_closed = [this](Error) { closed_ = true; }});
    hello.pid = 1;
    channel_->send(Message{std::move(hello)});
  }

  // With this incarnation's generation.
  template <class Body>
  void send(Body body) {
    body.generation = key_.generation;
    send_as_is(std::move(body));
  }
  template <class Body>
  void send_as_is(Body body) {
    channel_->send(Message{std::move(body)});
  }

  // The messages of one kind, oldest first.
  template <class Body>
  std::vector<Body> all() const {
    std::vector<Body> found;
    for (const Message& message : received_) {
      if (const auto* body = std::get_if<Body>(&message)) found.push_back(*body);
    }
    return found;
  }
  template <class Body>
  bool got() const {
    return !all<Body>().empty();
  }
  template <class Body>
  Body last() const {
    const auto found = all<Body>();
    CHECK(!found.empty(), std::string(Body::kType));
    return found.back();
  }
  bool closed() const { return closed_; }

 private:
  ProcessKey key_;
  std::unique_ptr<Channel> channel_;
  std::vector<Message> received_;
  bool closed_ = false;
};

}  // namespace bulkhead
