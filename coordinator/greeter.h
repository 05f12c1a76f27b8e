// The door of the coordinator: a new connection's first message must be a
// hello that may come in.
//
// Checks what every hello must say; whether a process of that rank, plugin and
// generation is waited for, its owner knows.  Used on the loop's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "peer.h"

namespace bulkhead {

class Greeter {
 public:
  struct Rules {
    std::string secret;
    // Why this process may not come in; empty when it is waited for.
    std::function<std::string(const Hello&)> refusal;
    // It may; the callee welcomes it.
    std::function<void(std::unique_ptr<Peer>, const Hello&)> admit;
  };

  Greeter(EventLoop& loop, Rules rules) : loop_(loop), rules_(std::move(rules)) {}

  // Waits for its first message, then admits it, or refuses it with a
  // sentence and hangs up.
  void accept(std::unique_ptr<Channel> channel);

 private:
  void first_message(std::int64_t number, const Message& message);

  EventLoop& loop_;
  Rules rules_;
  std::int64_t next_ = 0;
  std::map<std::int64_t, std::unique_ptr<Peer>> strangers_;
};

}  // namespace bulkhead
