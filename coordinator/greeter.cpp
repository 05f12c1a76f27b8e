#include "greeter.h"

#include <utility>

#include "protocol/log.h"

namespace bulkhead {

void Greeter::accept(std::unique_ptr<Channel> channel) {
  const std::int64_t number = next_++;
  strangers_[number] = std::make_unique<Peer>(
      loop_, std::move(channel),
      Channel::Handlers{.on_message = [this, number](Message message) { first_message(number, message); },
                        .on_closed = [this, number](Error) { strangers_.erase(number); }});
}

void Greeter::first_message(std::int64_t number, const Message& message) {
  auto stranger = strangers_.extract(number);
  if (stranger.empty()) return;
  std::unique_ptr<Peer> peer = std::move(stranger.mapped());
  const auto* hello = std::get_if<Hello>(&message);
  std::string reason = hello ? refusal(*hello, rules_.secret)
                             : "the first message must be hello, not " + std::string(type_of(message));
  if (reason.empty()) reason = rules_.refusal(*hello);
  if (reason.empty()) return rules_.admit(std::move(peer), *hello);
  spdlog::warn("refused a connection: {}", reason);
  peer->send(Refuse{.generation = {}, .reason = reason});
}

}  // namespace bulkhead
