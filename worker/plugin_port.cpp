#include "plugin_port.h"

#include <utility>

#include "protocol/device_memory.h"

namespace bulkhead {

std::unique_ptr<PluginPort> PluginPort::direct(PluginRoute route, StreamOptions options,
                                               HostLink::Surroundings around, Settle settle) {
  std::unique_ptr<PluginPort> port(new PluginPort(route));
  around.settle = [settle = std::move(settle)](Seq seq, Outcome outcome) {
    settle(seq.value, std::move(outcome));
  };
  port->link_ = std::make_unique<HostLink>(std::move(route), options, std::move(around));
  return port;
}

std::unique_ptr<PluginPort> PluginPort::home(PluginRoute route, StreamOptions options,
                                             HostLink::Surroundings around, std::vector<std::int64_t> ranks,
                                             RelayHub* const* hub, Settle settle) {
  std::unique_ptr<PluginPort> port(new PluginPort(route));
  port->rank_ = ranks.front();
  around.settle = [raw = port.get()](Seq seq, Outcome outcome) {
    raw->shared_->settled(seq, std::move(outcome));
  };
  port->link_ = std::make_unique<HostLink>(route, options, std::move(around));
  HostLink& link = *port->link_;
  port->shared_ = std::make_unique<SharedStream>(
      std::move(ranks), route,
      SharedStream::Stream{[&link](SharedCall call) {
                             return link.submit(call.hook, std::move(call.context), std::move(call.input),
                                                call.bytes, std::move(call.again));
                           },
                           [&link](Seq seq, Batch input) { link.supply(seq, std::move(input)); },
                           [&link](Seq seq) { link.want(seq); }},
      [hub, plugin = route.plugin, home = port->rank_, settle = std::move(settle)](
          std::int64_t rank, std::int64_t number, Outcome outcome) {
        if (rank == home) return settle(number, std::move(outcome));
        (*hub)->settle(rank, plugin, number, std::move(outcome));
      });
  return port;
}

std::unique_ptr<PluginPort> PluginPort::away(PluginRoute route, RelayLink* relay) {
  std::unique_ptr<PluginPort> port(new PluginPort(std::move(route)));
  port->relay_ = relay;
  return port;
}

std::int64_t PluginPort::call(SharedCall call) {
  if (relay_ != nullptr && call.input) call.input = in_host_memory(std::move(*call.input));
  if (relay_ != nullptr) return relay_->call(route_.plugin, std::move(call));
  if (shared_) return shared_->call(rank_, std::move(call));
  return link_
      ->submit(call.hook, std::move(call.context), std::move(call.input), call.bytes, std::move(call.again))
      .value;
}

void PluginPort::supply(std::int64_t ticket, Batch input) {
  if (relay_ != nullptr)
    relay_->supply(route_.plugin, ticket, in_host_memory(std::move(input)));
  else if (shared_)
    shared_->supply(rank_, ticket, std::move(input));
  else
    link_->supply(Seq(ticket), std::move(input));
}

void PluginPort::want(std::int64_t ticket) {
  if (relay_ != nullptr)
    relay_->want(route_.plugin, ticket);
  else if (shared_)
    shared_->want(rank_, ticket);
  else
    link_->want(Seq(ticket));
}

void PluginPort::snapshot() {
  if (link_) link_->snapshot();
}

void PluginPort::retire() {
  retired_ = true;
  if (link_) link_->stream().retire();
}

}  // namespace bulkhead
