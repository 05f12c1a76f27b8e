#include "plugin_client.h"

#include <algorithm>
#include <chrono>
#include <future>
#include <utility>

#include "plugin_client_loop.h"

namespace bulkhead {

void Collected::add(const Outcome& outcome, PluginId plugin) {
  control.merge(outcome.control);
  notes.insert(notes.end(), outcome.notes.begin(), outcome.notes.end());
  if (outcome.kind == Outcome::Kind::kGivenUp) given_up.push_back(plugin.value);
  if (outcome.abort && abort.empty()) abort = outcome.reason;
}

PluginClient::PluginClient(EventLoop& compute, EventLoop& loop, Options options,
                           const std::vector<PluginRoute>& routes, std::map<std::string, Restored> restored,
                           std::function<void(Message)> tell_coordinator)
    : compute_(compute), loop_(loop), loop_side_(new LoopSide{loop, {}, {}, {}, {}}) {
  for (const PluginRoute& route : routes) {
    plugins_.push_back({route.plugin, route.config.name, route.config.scope, route.traits, false});
    if (!route.traits.has("transform_train_batch")) continue;
    const std::int64_t before = prefetch_.empty() ? route.config.prefetch : prefetch_.back();
    prefetch_.push_back(std::min(before, route.config.prefetch));
  }
  on_loop([&] {
    LoopSide& side = *loop_side_;
    for (std::size_t i = 0; i < routes.size(); ++i) {
      HostLink::Surroundings around{
          &loop,
          options.generation,
          options.rank,
          options.secret,
          tell_coordinator,
          [raw = loop_side_.get(), i](Seq seq, Outcome outcome) { raw->settle(i, seq, std::move(outcome)); },
          [options, name = routes[i].config.name](const Call& call, const std::string& reason) {
            write_dead_letter(options.dead_letters, name, options.rank, call, reason);
          }};
      side.links.push_back(std::make_unique<HostLink>(routes[i], options.stream, std::move(around)));
      if (routes[i].traits.has("transform_train_batch")) side.chain.push_back(i);
      if (const auto found = restored.find(routes[i].config.name); found != restored.end()) {
        if (found->second.state) side.links.back()->stream().restore(*found->second.state);
        side.links.back()->stream().continue_after(found->second.last_seq);
      }
    }
  });
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

void PluginClient::wait_ready() {
  // Readiness lives on the loop's thread; it is asked for rather than shared.
  for (bool ready = false; !ready;) {
    on_loop([&] {
      ready = std::all_of(loop_side_->links.begin(), loop_side_->links.end(),
                          [](const auto& link) { return link->stream().is_ready(); });
    });
    if (ready) return;
    bool due = false;
    const auto timer = compute_.call_after(std::chrono::milliseconds(2), [&] { due = true; });
    wait_until([&] { return due; });
  }
}

bool PluginClient::has(std::string_view hook) const {
  return std::any_of(plugins_.begin(), plugins_.end(),
                     [&](const Known& plugin) { return !plugin.retired && plugin.traits.has(hook); });
}

std::vector<std::shared_ptr<PluginClient::Slot>> PluginClient::send(std::string_view hook,
                                                                    const HookContext& context) {
  std::vector<std::shared_ptr<Slot>> slots;
  std::vector<std::pair<std::size_t, CallContext>> calls;
  for (std::size_t i = 0; i < plugins_.size(); ++i) {
    if (plugins_[i].retired || !plugins_[i].traits.has(hook)) continue;
    calls.emplace_back(i, context.of(plugins_[i].scope));
    slots.push_back(plugins_[i].traits.steers ? std::make_shared<Slot>(Slot{plugins_[i].plugin, false, {}})
                                              : nullptr);
  }
  if (calls.empty()) return {};
  loop_.post([this, side = loop_side_, slots, hook = std::string(hook), calls = std::move(calls)]() mutable {
    for (std::size_t n = 0; n < calls.size(); ++n) {
      auto& [i, call_context] = calls[n];
      const Seq seq = side->links[i]->submit(hook, std::move(call_context));
      if (slots[n] == nullptr) continue;  // an observer: nobody waits
      side->takers[{i, seq.value}] = into(slots[n]);
      side->links[i]->want(seq);
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
  for (const auto& slot : slots) collected.add(slot->outcome, slot->plugin);
  return collected;
}

void PluginClient::notify(std::string_view hook, const HookContext& context) {
  for (auto& slot : send(hook, context)) sent_.push_back(std::move(slot));
}

Collected PluginClient::collect() { return gather(std::exchange(sent_, {})); }

Collected PluginClient::call(std::string_view hook, const HookContext& context) {
  return gather(send(hook, context));
}

void PluginClient::transform(std::size_t stage, std::int64_t step, std::int64_t micro,
                             const CallContext& context, std::optional<Batch> raw, std::size_t bytes) {
  loop_.post([side = loop_side_, stage, step, micro, context, raw = std::move(raw), bytes]() mutable {
    side->transform(stage, step, micro, std::move(context), std::move(raw), bytes);
  });
}

void PluginClient::want_batches(std::int64_t step, std::int64_t count) {
  for (std::int64_t micro = 0; micro < count; ++micro) want_batch({step, micro});
}

void PluginClient::want_batch(std::pair<std::int64_t, std::int64_t> key) {
  auto& slot = wanted_[key];
  if (slot) return;
  slot = std::make_shared<BatchSlot>();
  loop_.post([this, side = loop_side_, key, slot = slot] {
    side->jobs.at(key).receiver = [this, slot](TakenBatch taken) {
      compute_.post([slot, taken = std::move(taken)]() mutable {
        slot->taken = std::move(taken);
        slot->settled = true;
      });
    };
    side->advance(key);
  });
}

TakenBatch PluginClient::take(std::int64_t step, std::int64_t micro) {
  want_batch({step, micro});  // not those before it: they have been taken
  const auto slot = wanted_.extract({step, micro}).mapped();
  wait_until([&] { return slot->settled; });
  return std::move(slot->taken);
}

void PluginClient::drop_batches() {
  pending_batches();  // what is under way ends first: the streams stay whole
  wanted_.clear();
  on_loop([this] { loop_side_->jobs.clear(); });
}

std::map<std::string, Blob> PluginClient::snapshot(const HookContext& context, Collected& collected) {
  std::vector<std::shared_ptr<Slot>> slots;
  std::vector<std::size_t> which;
  for (std::size_t i = 0; i < plugins_.size(); ++i) {
    const Known& plugin = plugins_[i];
    if (plugin.retired || !plugin.traits.steers || !plugin.traits.stateful || plugin.traits.stateless)
      continue;
    which.push_back(i);
    slots.push_back(std::make_shared<Slot>(Slot{plugin.plugin, false, {}}));
  }
  loop_.post([this, side = loop_side_, slots, which, context, scopes = plugins_]() {
    for (std::size_t n = 0; n < which.size(); ++n) {
      HostLink& link = *side->links[which[n]];
      const Seq seq = link.submit("state_dict", context.of(scopes[which[n]].scope));
      side->takers[{which[n], seq.value}] = into(slots[n]);
      link.want(seq);
    }
  });
  collected = gather(slots);
  std::map<std::string, Blob> states;
  for (std::size_t n = 0; n < which.size(); ++n) {
    if (slots[n]->outcome.state) states[plugins_[which[n]].name] = *slots[n]->outcome.state;
  }
  return states;
}

std::map<std::string, std::int64_t> PluginClient::last_seqs() {
  std::map<std::string, std::int64_t> seqs;
  on_loop([&] {
    for (const auto& link : loop_side_->links) seqs[link->name()] = link->stream().last_seq().value;
  });
  return seqs;
}

std::vector<PendingBatch> PluginClient::pending_batches() {
  // Ask for all that is under way, then wait until it has come.
  on_loop([this] {
    for (auto& [key, job] : loop_side_->jobs) job.draining = true;
    for (auto& [key, job] : loop_side_->jobs) loop_side_->advance(key);
  });
  std::vector<PendingBatch> batches;
  for (bool done = false; !done;) {
    on_loop([&] {
      batches.clear();
      done = true;
      for (auto& [key, job] : loop_side_->jobs) {
        done = done && job.under_way.empty();
        batches.push_back({key.first, key.second, job.stages, job.skip, job.dead_letter, job.current});
      }
    });
    if (done) break;
    bool due = false;
    const auto timer = compute_.call_after(std::chrono::milliseconds(1), [&] { due = true; });
    wait_until([&] { return due; });
  }
  // Those that the compute thread has asked for already have left the chain.
  for (const auto& [key, slot] : wanted_) {
    wait_until([&] { return slot->settled; });
    const TakenBatch& taken = slot->taken;
    const auto all_stages = static_cast<std::int64_t>(prefetch_.size());
    batches.push_back({key.first, key.second, all_stages, taken.skip, taken.dead_letter, taken.batch});
  }
  std::sort(batches.begin(), batches.end(), [](const PendingBatch& a, const PendingBatch& b) {
    return std::pair(a.step, a.micro) < std::pair(b.step, b.micro);
  });
  return batches;
}

void PluginClient::restore_batches(std::vector<PendingBatch> batches) {
  on_loop([&] {
    for (PendingBatch& pending : batches) {
      LoopSide::Job& job = loop_side_->jobs[{pending.step, pending.micro}];
      job.current = std::move(pending.batch);
      job.stages = pending.stages;
      job.skip = pending.skip;
      job.dead_letter = pending.dead_letter;
    }
  });
}

void PluginClient::retire(const std::vector<std::int64_t>& plugins) {
  for (Known& plugin : plugins_) {
    if (std::find(plugins.begin(), plugins.end(), plugin.plugin.value) != plugins.end())
      plugin.retired = true;
  }
  loop_.post([side = loop_side_, plugins] {
    for (const std::int64_t plugin : plugins) {
      if (HostLink* link = side->link_of(PluginId(plugin))) link->stream().retire();
    }
  });
}

std::vector<PluginReport> PluginClient::reports() {
  std::vector<PluginReport> reports;
  on_loop([&] {
    for (const auto& link : loop_side_->links) reports.push_back(link->stream().report());
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
