#include "relay.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <unistd.h>
#include <utility>

#include "protocol/log.h"

namespace bulkhead {
namespace {

using Kind = Outcome::Kind;
constexpr std::array<std::pair<Kind, std::string_view>, 4> kKinds{{{Kind::kAnswer, "answer"},
                                                                   {Kind::kError, "error"},
                                                                   {Kind::kPoison, "poison"},
                                                                   {Kind::kGivenUp, "given_up"}}};

}  // namespace

RelayOutcome to_wire(PluginId plugin, std::int64_t number, Outcome outcome) {
  RelayOutcome wire;
  wire.plugin = plugin;
  wire.number = number;
  for (const auto& [kind, name] : kKinds) {
    if (kind == outcome.kind) wire.kind = name;
  }
  wire.control = std::move(outcome.control);
  wire.batch = std::move(outcome.batch);
  wire.weights = std::move(outcome.weights);
  wire.skip = outcome.skip;
  wire.abort = outcome.abort;
  wire.fatal = outcome.fatal;
  wire.reason = std::move(outcome.reason);
  for (Note& note : outcome.notes) {
    if (!note.text.empty()) wire.texts.push_back(std::move(note.text));
    for (const auto& [name, value] : note.metrics) wire.metrics[name] = value;
  }
  return wire;
}

Outcome from_wire(RelayOutcome wire) {
  Outcome outcome;
  for (const auto& [kind, name] : kKinds) {
    if (name == wire.kind) outcome.kind = kind;
  }
  outcome.control = std::move(wire.control);
  outcome.batch = std::move(wire.batch);
  outcome.weights = std::move(wire.weights);
  outcome.skip = wire.skip;
  outcome.abort = wire.abort;
  outcome.fatal = wire.fatal;
  outcome.reason = std::move(wire.reason);
  for (std::string& text : wire.texts) outcome.notes.emplace_back().text = std::move(text);
  if (!wire.metrics.empty()) outcome.notes.emplace_back().metrics = std::move(wire.metrics);
  return outcome;
}

// ----- The home's end -----

Result<std::unique_ptr<RelayHub>> RelayHub::open(RelayIdentity identity,
                                                 const std::vector<std::string>& endpoints,
                                                 Handlers handlers) {
  std::unique_ptr<RelayHub> hub(new RelayHub(std::move(identity), std::move(handlers)));
  for (std::size_t i = 0; i < endpoints.size(); ++i) {
    if (endpoints[i].empty()) continue;
    const auto rank = static_cast<std::int64_t>(i);
    auto listener = listen_channel(
        *hub->identity_.loop, endpoints[i], {.one_peer = true},
        [raw = hub.get(), rank](std::unique_ptr<Channel> channel) { raw->met(rank, std::move(channel)); });
    if (!listener) return listener.error();
    hub->lines_[rank].listener = std::move(*listener);
  }
  return hub;
}

void RelayHub::met(std::int64_t rank, std::unique_ptr<Channel> channel) {
  Line& line = lines_.at(rank);
  line.channel = std::move(channel);
  line.channel->start({[this, rank](Message message) { on_message(rank, std::move(message)); },
                       [rank](const Error& why) {
                         spdlog::info("rank {}'s calls no longer come here: {}", rank, why.message);
                       }});
}

void RelayHub::on_message(std::int64_t rank, Message message) {
  Line& line = lines_.at(rank);
  if (generation_of(message) != identity_.generation) return;
  if (const Hello* hello = std::get_if<Hello>(&message)) {
    const std::string reason = refusal(*hello, identity_.secret);
    line.greeted = reason.empty() && hello->role == "worker" && hello->rank == rank;
    if (!line.greeted) spdlog::error("refused what wants to relay rank {}'s calls: {}", rank, reason);
  } else if (!line.greeted) {
    spdlog::error("{} came before the greeting of rank {}", type_of(message), rank);
  } else if (RelayCall* call = std::get_if<RelayCall>(&message)) {
    const bool passes = call->hook.empty();
    if (!passes && find_hook(call->hook) == nullptr)
      return spdlog::error("rank {} calls {}", rank, call->hook);
    SharedCall shared{
        std::move(call->hook), std::move(call->context), {}, static_cast<std::size_t>(call->bytes)};
    if (call->has_input) shared.input = std::move(call->batch);
    handlers_.call(rank, call->plugin, std::move(shared));
  } else if (RelaySupply* supply = std::get_if<RelaySupply>(&message)) {
    handlers_.supply(rank, supply->plugin, supply->number, std::move(supply->batch));
  } else if (const RelayWant* want = std::get_if<RelayWant>(&message)) {
    handlers_.want(rank, want->plugin, want->number);
  }
}

void RelayHub::settle(std::int64_t rank, PluginId plugin, std::int64_t number, Outcome outcome) {
  const auto found = lines_.find(rank);
  if (found == lines_.end() || !found->second.channel) return;
  RelayOutcome wire = to_wire(plugin, number, std::move(outcome));
  wire.generation = identity_.generation;
  found->second.channel->send(Message{std::move(wire)});
}

// ----- The other ranks' end -----

Result<std::unique_ptr<RelayLink>> RelayLink::open(RelayIdentity identity, const std::string& endpoint,
                                                   Settle settle) {
  auto channel = connect_channel(*identity.loop, endpoint);
  if (!channel) return channel.error();
  std::unique_ptr<RelayLink> link(new RelayLink(std::move(identity), std::move(settle)));
  link->channel_ = std::move(*channel);
  link->channel_->start(
      {[raw = link.get()](Message message) { raw->on_message(std::move(message)); },
       [](const Error& why) { spdlog::info("the home of shared plugins is gone: {}", why.message); }});
  Hello hello;
  hello.role = "worker";
  hello.rank = link->identity_.rank;
  hello.pid = ::getpid();
  hello.secret = link->identity_.secret;
  link->send(std::move(hello));
  return link;
}

void RelayLink::on_message(Message message) {
  if (generation_of(message) != identity_.generation) return;
  if (RelayOutcome* outcome = std::get_if<RelayOutcome>(&message)) {
    const PluginId plugin = outcome->plugin;
    const std::int64_t number = outcome->number;
    settle_(plugin, number, from_wire(std::move(*outcome)));
  }
}

std::int64_t RelayLink::call(PluginId plugin, SharedCall call) {
  RelayCall wire;
  wire.plugin = plugin;
  wire.number = ++numbers_[plugin];
  wire.hook = std::move(call.hook);
  wire.context = std::move(call.context);
  wire.bytes = static_cast<std::int64_t>(call.bytes);
  wire.has_input = call.input.has_value();
  if (call.input) wire.batch = std::move(*call.input);
  const std::int64_t number = wire.number;
  send(std::move(wire));
  return number;
}

void RelayLink::supply(PluginId plugin, std::int64_t number, Batch input) {
  RelaySupply wire;
  wire.plugin = plugin;
  wire.number = number;
  wire.batch = std::move(input);
  send(std::move(wire));
}

void RelayLink::want(PluginId plugin, std::int64_t number) {
  RelayWant wire;
  wire.plugin = plugin;
  wire.number = number;
  send(std::move(wire));
}

}  // namespace bulkhead
