#include "plugin_client.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "plugin_client_loop.h"

namespace bulkhead {

void Collected::add(Outcome outcome, PluginId plugin, std::int64_t rank) {
  for (Setting& setting : outcome.control.settings) {
    setting.plugin = plugin.value;
    setting.rank = rank;
  }
  control.merge(outcome.control);
  notes.insert(notes.end(), outcome.notes.begin(), outcome.notes.end());
  if (outcome.kind == Outcome::Kind::kGivenUp) given_up.push_back(plugin.value);
  if (outcome.abort && abort.empty()) abort = outcome.reason;
  if (outcome.fatal && fatal.empty()) fatal = outcome.reason;
  if (outcome.weights.empty() || plugin.value < weights_of) return;
  weights_of = plugin.value;
  weights = std::move(outcome.weights);
}

PluginClient::~PluginClient() {
  on_loop([this] { loop_side_.reset(); });
}

void PluginClient::attach_host(const AttachHost& attach) {
  if (HostLink* link = loop_side_->link_of(attach.plugin)) link->attach(attach);
}

void PluginClient::host_lost(const HostLost& lost) {
  if (HostLink* link = loop_side_->link_of(lost.plugin)) link->lost(lost);
}

void PluginClient::gather_wanted(const GatherWanted& wanted) {
  if (HostLink* link = loop_side_->link_of(wanted.plugin)) link->gather_wanted(wanted);
}

void PluginClient::gather_done(GatherDone done) {
  if (HostLink* link = loop_side_->link_of(done.plugin)) link->gather_done(std::move(done));
}

void PluginClient::wait_ready() {
  // Readiness lives on the loop's thread; it is asked for rather than shared.
  for (bool ready = false; !ready;) {
    on_loop([&] {
      ready = std::all_of(loop_side_->ports.begin(), loop_side_->ports.end(), [](const auto& port) {
        return port->link() == nullptr || port->link()->stream().is_ready();
      });
    });
    if (ready) return;
    bool due = false;
    const auto timer = compute_.call_after(std::chrono::milliseconds(2), [&] { due = true; });
    wait_until([&] { return due; });
  }
}

bool PluginClient::has(std::string_view hook) const {
  return std::any_of(plugins_.begin(), plugins_.end(),
                     [&](const Known& plugin) { return calls(plugin, hook); });
}

// Asked for in every step: found once.
const PluginClient::Callees::value_type& PluginClient::callees_of(std::string_view hook) {
  const auto known = callees_.find(hook);
  if (known != callees_.end()) return *known;
  const auto found = callees_.try_emplace(find_hook(hook)->name).first;
  for (std::size_t i = 0; i < plugins_.size(); ++i) {
    if (calls(plugins_[i], hook)) found->second.push_back(i);
  }
  return *found;
}

// In job scope all hooks but transforms are rank 0's.
bool PluginClient::calls(const Known& plugin, std::string_view hook) const {
  if (plugin.retired || !plugin.traits.has(hook)) return false;
  return plugin.is_home || plugin.scope == "node" || find_hook(hook)->moves_batch();
}

// In a process that several ranks share a call says whose it is.
CallContext PluginClient::own(CallContext context, const Known& plugin) const {
  if (plugin.scope == "rank") return context;
  context.rank = facts_.rank;
  context.local_rank = facts_.local_rank;
  context.device = facts_.device;
  return context;
}

std::vector<std::shared_ptr<PluginClient::Slot>> PluginClient::send(std::string_view hook,
                                                                    const HookContext& context) {
  std::vector<std::shared_ptr<Slot>> slots;
  std::vector<std::pair<std::size_t, CallContext>> calls;
  for (const std::size_t i : callees_of(hook).second) {
    const Known& plugin = plugins_[i];
    calls.emplace_back(i, own(context.of(plugin.scope), plugin));
    slots.push_back(plugin.traits.steers ? std::make_shared<Slot>(Slot{plugin.plugin, i, false, {}})
                                         : nullptr);
  }
  if (calls.empty()) return {};
  loop_.post([this, side = loop_side_, slots, hook = std::string(hook), calls = std::move(calls)]() mutable {
    for (std::size_t n = 0; n < calls.size(); ++n) {
      auto& [i, call_context] = calls[n];
      const std::int64_t ticket = side->ports[i]->call({hook, std::move(call_context), {}, 0});
      if (slots[n] == nullptr) continue;  // an observer: nobody waits
      side->takers[{i, ticket}] = into(slots[n]);
      side->ports[i]->want(ticket);
    }
  });
  std::erase(slots, nullptr);
  return slots;
}

std::function<void(Outcome)> PluginClient::into(std::shared_ptr<Slot> slot) {
  return [this, slot = std::move(slot)](Outcome outcome) {
    compute_.post([slot, outcome = std::move(outcome)]() mutable {
      slot->outcome = std::move(outcome);
      slot->settled = true;
    });
  };
}

Collected PluginClient::gather(const std::vector<std::shared_ptr<Slot>>& slots) {
  wait_until([&] {
    return std::all_of(slots.begin(), slots.end(), [](const auto& slot) { return slot->settled; });
  });
  Collected collected;
  std::vector<std::size_t> with_weights;
  for (const auto& slot : slots) {
    if (slot->outcome.saw_weights) with_weights.push_back(slot->port);
    collected.add(std::move(slot->outcome), slot->plugin, facts_.rank);
  }
  snapshot_after(with_weights);
  return collected;
}

void PluginClient::snapshot_after(const std::vector<std::size_t>& ports) {
  if (ports.empty()) return;
  loop_.post([side = loop_side_, ports] {
    for (const std::size_t port : ports) side->ports[port]->snapshot();
  });
}

// ----- Step-level hooks -----

void PluginClient::notify(std::string_view hook, const HookContext& context, std::int64_t due, When when) {
  const auto& [name, callees] = callees_of(hook);
  if (callees.empty()) return;
  if (idle_.empty()) idle_.push_back(std::make_unique<Event>());
  sent_.push_back(std::move(idle_.back()));
  idle_.pop_back();
  Event& event = *sent_.back();
  event.hook = name;
  event.due = due;
  event.callees = callees;
  event.context = context;
  event.settled = false;
  // The loop thread is done with the event before this object is destroyed.
  const auto task = [this, &event] { deliver(event); };
  if (when == When::kNow) return loop_.post(task);
  loop_.post_lazily(task);
}

// Loop thread.
void PluginClient::deliver(Event& event) {
  event.unanswered = event.callees.size();
  event.outcomes.resize(event.callees.size());
  for (std::size_t n = 0; n < event.callees.size(); ++n) {
    const std::size_t i = event.callees[n];
    const Known& plugin = plugins_[i];
    PluginPort& port = *loop_side_->ports[i];
    const std::int64_t ticket =
        port.call({std::string(event.hook), own(event.context.of(plugin.scope), plugin), {}, 0});
    if (!plugin.traits.steers) {  // an observer: nobody waits
      answered(event, n, {});
      continue;
    }
    loop_side_->takers[{i, ticket}] = [this, &event, n](Outcome outcome) {
      answered(event, n, std::move(outcome));
    };
    port.want(ticket);
  }
}

// Loop thread.
void PluginClient::answered(Event& event, std::size_t callee, Outcome outcome) {
  event.outcomes[callee] = std::move(outcome);
  if (--event.unanswered > 0) return;
  compute_.post([&event] { event.settled = true; });
}

Collected PluginClient::collect(std::int64_t due) {
  const auto is_due = [due](const auto& event) { return event->due <= due; };
  const auto is_open = [&](const auto& event) { return is_due(event) && !event->settled; };
  if (std::ranges::any_of(sent_, is_open)) {
    send_now();
    wait_until([&] { return std::ranges::none_of(sent_, is_open); });
  }
  Collected collected;
  std::vector<std::size_t> with_weights;
  for (auto& event : sent_) {
    if (!is_due(event)) continue;
    for (std::size_t n = 0; n < event->callees.size(); ++n) {
      const std::size_t i = event->callees[n];
      if (event->outcomes[n].saw_weights) with_weights.push_back(i);
      collected.add(std::exchange(event->outcomes[n], {}), plugins_[i].plugin, facts_.rank);
    }
    idle_.push_back(std::move(event));
  }
  std::erase(sent_, nullptr);
  snapshot_after(with_weights);
  return collected;
}

void PluginClient::pass(std::string_view hook) {
  for (std::size_t i = 0; i < plugins_.size(); ++i) {
    if (plugins_[i].scope == "node" && calls(plugins_[i], hook)) pass_port(i);
  }
}

void PluginClient::pass_stage(Phase phase, std::size_t stage) {
  const std::size_t port = stage_ports_.at(phase)[stage];
  if (!plugins_[port].retired) pass_port(port);
}

void PluginClient::pass_port(std::size_t port) {
  if (plugins_[port].scope == "rank") return;
  loop_.post([side = loop_side_, port] { side->ports[port]->call({}); });
}

void PluginClient::leave_shared() {
  for (Known& plugin : plugins_) plugin.retired |= plugin.scope != "rank";
  callees_.clear();
}

Collected PluginClient::call(std::string_view hook, const HookContext& context) {
  return gather(send(hook, context));
}

std::map<std::string, Blob> PluginClient::snapshot(const HookContext& context, Collected& collected) {
  return snapshot_of([](const Known&) { return true; }, context, collected);
}

std::map<std::string, Blob> PluginClient::snapshot_of(const std::function<bool(const Known&)>& wanted,
                                                      const HookContext& context, Collected& collected) {
  std::vector<std::shared_ptr<Slot>> slots;
  std::vector<std::size_t> which;
  for (std::size_t i = 0; i < plugins_.size(); ++i) {
    const Known& plugin = plugins_[i];
    const bool keeps = plugin.traits.steers && plugin.traits.stateful && !plugin.traits.stateless;
    if (plugin.retired || !plugin.is_home || !keeps || !wanted(plugin)) continue;
    which.push_back(i);
    slots.push_back(std::make_shared<Slot>(Slot{plugin.plugin, i, false, {}}));
  }
  loop_.post([this, side = loop_side_, slots, which, context, scopes = plugins_]() {
    for (std::size_t n = 0; n < which.size(); ++n) {
      PluginPort& port = *side->ports[which[n]];
      const std::int64_t ticket = port.call({"state_dict", context.of(scopes[which[n]].scope), {}, 0});
      side->takers[{which[n], ticket}] = into(slots[n]);
      port.want(ticket);
    }
  });
  std::map<std::string, Blob> states;
  wait_until([&] {
    return std::all_of(slots.begin(), slots.end(), [](const auto& slot) { return slot->settled; });
  });
  for (std::size_t n = 0; n < which.size(); ++n) {
    if (slots[n]->outcome.state) states[plugins_[which[n]].name] = *slots[n]->outcome.state;
  }
  collected = gather(slots);
  return states;
}

std::map<std::string, std::int64_t> PluginClient::last_seqs() {
  std::map<std::string, std::int64_t> seqs;
  on_loop([&] {
    for (const auto& port : loop_side_->ports) {
      if (HostLink* link = port->link()) seqs[link->name()] = link->stream().last_seq().value;
    }
  });
  return seqs;
}

void PluginClient::retire(const std::vector<std::int64_t>& plugins) {
  if (plugins.empty()) return;
  for (Known& plugin : plugins_) {
    if (std::find(plugins.begin(), plugins.end(), plugin.plugin.value) == plugins.end()) continue;
    plugin.retired = true;
    callees_.clear();
  }
  loop_.post([side = loop_side_, plugins] {
    for (const std::int64_t plugin : plugins) {
      if (PluginPort* port = side->port_of(PluginId(plugin))) port->retire();
    }
  });
}

std::vector<PluginReport> PluginClient::reports() {
  std::vector<PluginReport> reports;
  on_loop([&] {
    for (const auto& port : loop_side_->ports) {
      if (HostLink* link = port->link()) reports.push_back(link->stream().report());
    }
  });
  return reports;
}

void PluginClient::wait_until(const std::function<bool()>& done) {
  const TimePoint from = compute_.now();
  compute_.run_until(done);
  waited_seconds_ += std::chrono::duration<double>(compute_.now() - from).count();
}

void PluginClient::on_loop(const std::function<void()>& task) {
  bool done = false;
  loop_.post([&] {
    task();
    compute_.post([&] { done = true; });
  });
  wait_until([&] { return done; });
}

}  // namespace bulkhead
