// How PluginClient begins: a port for each plugin, the chains of transforms,
// and the way to processes that several ranks share.
#include <algorithm>
#include <numeric>
#include <utility>

#include "plugin_client_loop.h"
#include "protocol/log.h"

namespace bulkhead {
namespace {

// One process for calls of several ranks.
bool is_shared(const PluginRoute& route, const Facts& facts) {
  if (facts.world_size == 1 || route.config.scope == "rank") return false;
  if (route.config.scope == "node") return true;
  const std::vector<std::string>& hooks = route.traits.hooks;
  return std::any_of(hooks.begin(), hooks.end(), [](const std::string& name) {
    const HookInfo* hook = find_hook(name);
    return hook != nullptr && hook->moves_batch();
  });
}

// Whether it is called on such data.
bool sees(const HookInfo& hook, SampleKind samples) {
  if (hook.kind == HookKind::kSample) return samples == SampleKind::kCaptions;
  const bool of_rows = hook.kind == HookKind::kRows || hook.kind == HookKind::kCollate;
  return !of_rows || samples == SampleKind::kRows;
}

// Plugins may have an eighth of the GPU's memory; null where it cannot be shared.
std::unique_ptr<DeviceMemory> open_device(int ordinal) {
  const Result<DeviceCalls> calls = load_device_calls();
  auto device = calls ? Device::open(*calls, ordinal) : calls.error();
  if (device) return std::make_unique<DeviceMemory>(*device, (*device)->total_bytes() / 8);
  spdlog::warn("batches go to plugins through host memory: {}", device.error().message);
  return nullptr;
}

std::vector<std::int64_t> all_ranks(std::int64_t world_size) {
  std::vector<std::int64_t> ranks(static_cast<std::size_t>(world_size));
  std::iota(ranks.begin(), ranks.end(), 0);
  return ranks;
}

}  // namespace

PluginClient::PluginClient(EventLoop& compute, EventLoop& loop, Options options,
                           const std::vector<PluginRoute>& routes, std::map<std::string, Restored> restored,
                           std::function<void(Message)> tell_coordinator)
    : compute_(compute), loop_(loop), facts_(options.facts), loop_side_(new LoopSide(loop)) {
  for (const PluginRoute& route : routes) {
    const bool is_home = !is_shared(route, facts_) || facts_.rank == 0;
    plugins_.push_back({route.plugin, route.config.name, route.config.scope, route.traits, is_home, false});
  }
  loop_side_->rank = facts_.rank;
  loop_side_->collate = options.collate;
  for (const Phase phase : {Phase::kTrain, Phase::kValidate, Phase::kTest}) prefetch_[phase];
  make_chains(routes, options.samples);
  warn_of_idle_hooks(routes, options.samples);
  std::int64_t spin_us = 0;
  for (const PluginRoute& route : routes) spin_us = std::max(spin_us, route.config.spin_us);
  compute_.spin_for(std::chrono::microseconds(spin_us));
  on_loop([&] {
    loop_.spin_for(std::chrono::microseconds(spin_us));
    open(options, routes, restored, tell_coordinator);
  });
}

// Loop thread, while the constructor waits.
void PluginClient::open(const Options& options, const std::vector<PluginRoute>& routes,
                        const std::map<std::string, Restored>& restored,
                        const std::function<void(Message)>& tell_coordinator) {
  LoopSide& side = *loop_side_;
  const RelayIdentity identity{&loop_, options.generation, facts_.rank, options.secret};
  const auto rank = static_cast<std::size_t>(facts_.rank);
  if (rank < options.relays.size() && !options.relays[rank].empty()) {
    auto away = RelayLink::open(identity, options.relays[rank],
                                [raw = &side](PluginId plugin, std::int64_t ticket, Outcome outcome) {
                                  for (std::size_t i = 0; i < raw->ports.size(); ++i) {
                                    if (raw->ports[i]->route().plugin == plugin)
                                      return raw->settle(i, ticket, std::move(outcome));
                                  }
                                });
    CHECK(away.ok(), away.error().message);
    side.away = std::move(*away);
  }
  const auto on_device = [](const PluginRoute& route) { return route.config.device == "cuda"; };
  if (options.gpu && std::ranges::any_of(routes, on_device)) side.device = open_device(*options.gpu);
  for (std::size_t i = 0; i < routes.size(); ++i) {
    const PluginRoute& route = routes[i];
    const auto settle = [raw = &side, i](std::int64_t ticket, Outcome outcome) {
      raw->settle(i, ticket, std::move(outcome));
    };
    HostLink::Surroundings around = surroundings(options, route, tell_coordinator);
    if (!is_shared(route, facts_)) {
      side.ports.push_back(PluginPort::direct(route, options.stream, std::move(around), settle));
    } else if (facts_.rank == 0) {
      side.ports.push_back(PluginPort::home(route, options.stream, std::move(around),
                                            all_ranks(facts_.world_size), &side.hub_address, settle));
    } else {
      side.ports.push_back(PluginPort::away(route, side.away.get()));
    }
    HostLink* link = side.ports.back()->link();
    const auto found = restored.find(route.config.name);
    if (link == nullptr || found == restored.end()) continue;
    if (found->second.state) link->stream().restore(*found->second.state);
    link->stream().continue_after(found->second.last_seq);
  }
  // Calls of other ranks may arrive from here on.
  auto hub = RelayHub::open(identity, facts_.rank == 0 ? options.relays : std::vector<std::string>{},
                            side.hub_handlers());
  CHECK(hub.ok(), hub.error().message);
  side.hub = std::move(*hub);
  side.hub_address = side.hub.get();
}

HostLink::Surroundings PluginClient::surroundings(const Options& options, const PluginRoute& route,
                                                  const std::function<void(Message)>& tell_coordinator) {
  HostLink::Surroundings around;
  around.loop = &loop_;
  around.generation = options.generation;
  around.rank = facts_.rank;
  around.secret = options.secret;
  around.arena = &loop_side_->arena;
  around.tell_coordinator = tell_coordinator;
  Facts facts = facts_;
  facts.plugin = route.config.name;
  facts.scope = route.config.scope;
  around.dead_letter = [directory = options.dead_letters, facts, plugin = route.config](
                           const Call& call, const std::string& reason) {
    write_dead_letter(directory, plugin, facts, call, reason);
  };
  around.weights = [this, weights = options.weights,
                    side = std::weak_ptr(loop_side_)](std::function<void(Batch)> use) {
    compute_.post([this, weights, side, use = std::move(use)] {
      loop_.post([side, use, batch = weights()]() mutable {
        if (!side.expired()) use(std::move(batch));
      });
    });
  };
  around.device = loop_side_->device.get();
  around.alone = facts_.world_size == 1 || route.config.scope == "job";
  return around;
}

// The stages in the order of protocol/README.md, rule 2.
void PluginClient::make_chains(const std::vector<PluginRoute>& routes, SampleKind samples) {
  struct Source {
    Phase phase;
    const char* hook;
  };
  for (const Source& source :
       {Source{Phase::kTrain, "transform_image"}, Source{Phase::kTrain, "transform_caption"},
        Source{Phase::kTrain, "transform_sample"}, Source{Phase::kTrain, "collate"},
        Source{Phase::kTrain, "transform_train_batch"}, Source{Phase::kValidate, "collate"},
        Source{Phase::kValidate, "transform_validate_batch"}, Source{Phase::kTest, "collate"},
        Source{Phase::kTest, "transform_test_batch"}}) {
    const HookInfo& hook = *find_hook(source.hook);
    if (!sees(hook, samples)) continue;
    std::vector<std::int64_t>& prefetch = prefetch_[source.phase];
    for (std::size_t i = 0; i < routes.size(); ++i) {
      if (!routes[i].traits.has(source.hook)) continue;
      loop_side_->chains[source.phase].push_back({i, source.hook, hook.takes_samples()});
      stage_ports_[source.phase].push_back(i);
      const std::int64_t own = routes[i].config.prefetch;
      prefetch.push_back(prefetch.empty() ? own : std::min(prefetch.back(), own));
      if (hook.takes_samples()) takes_samples_.insert(source.phase);
      last_hook_[source.phase] = source.hook;
    }
  }
}

// Once, where they would wait for their first call.
void PluginClient::warn_of_idle_hooks(const std::vector<PluginRoute>& routes, SampleKind samples) {
  for (const PluginRoute& route : routes) {
    for (const std::string& name : route.traits.hooks) {
      const HookInfo* hook = find_hook(name);
      if (hook == nullptr || sees(*hook, samples)) continue;
      spdlog::warn("{} has {}, which is never called: this data has no {}", route.config.name, name,
                   hook->kind == HookKind::kSample ? "images and captions" : "rows");
    }
  }
}

}  // namespace bulkhead
