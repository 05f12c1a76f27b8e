#include "plugin_client_loop.h"

#include <algorithm>
#include <utility>

#include "protocol/log.h"

namespace bulkhead {
namespace {

bool are_samples(const Batch& batch) {
  return std::any_of(batch.begin(), batch.end(),
                     [](const Tensor& tensor) { return tensor.name.ends_with(".ends"); });
}

}  // namespace

PluginPort* PluginClient::LoopSide::port_of(PluginId plugin) {
  for (const auto& port : ports) {
    if (port->route().plugin == plugin) return port.get();
  }
  return nullptr;
}

HostLink* PluginClient::LoopSide::link_of(PluginId plugin) {
  PluginPort* port = port_of(plugin);
  return port == nullptr ? nullptr : port->link();
}

void PluginClient::LoopSide::settle(std::size_t port, std::int64_t ticket, Outcome outcome) {
  const auto found = takers.find({port, ticket});
  CHECK(found != takers.end(), "a call that nobody waits for");
  const Taker taker = std::move(found->second);
  takers.erase(found);
  taker(std::move(outcome));
}

RelayHub::Handlers PluginClient::LoopSide::hub_handlers() {
  const auto shared = [this](PluginId plugin) -> SharedStream* {
    PluginPort* port = port_of(plugin);
    return port == nullptr ? nullptr : port->shared();
  };
  return {[shared](std::int64_t from, PluginId plugin, SharedCall call) {
            if (SharedStream* stream = shared(plugin)) stream->call(from, std::move(call));
          },
          [shared](std::int64_t from, PluginId plugin, std::int64_t number, Batch input) {
            if (SharedStream* stream = shared(plugin)) stream->supply(from, number, std::move(input));
          },
          [shared](std::int64_t from, PluginId plugin, std::int64_t number) {
            if (SharedStream* stream = shared(plugin)) stream->want(from, number);
          }};
}

// ----- Chains -----

void PluginClient::LoopSide::transform(std::size_t stage, BatchKey key, CallContext context,
                                       std::optional<RawBatch> raw, std::size_t bytes) {
  Job& job = jobs[key];
  std::function<Batch()> again;
  if (raw) {
    job.current = std::move(raw->batch);
    again = std::move(raw->again);
    if (are_samples(job.current)) job.raw = job.current;
  }
  const Stage& at = chains[key.phase][stage];
  PluginPort& port = *ports[at.port];
  if (port.retired()) {
    ++job.stages;
    return;
  }
  SharedCall call{at.hook, std::move(context), {}, bytes, std::move(again)};
  if (job.under_way.empty()) {
    if (!at.of_samples) make_batch(job);
    // Whoever may change it where it lies has it alone.
    call.input = call.again ? std::exchange(job.current, {}) : job.current;
  }
  const std::int64_t ticket = port.call(std::move(call));
  job.under_way.emplace_back(stage, ticket);
  takers[{at.port, ticket}] = [this, key, plugin = port.route().plugin](Outcome outcome) {
    stage_done(key, std::move(outcome), plugin);
  };
  advance(key);
}

void PluginClient::LoopSide::advance(BatchKey key) {
  const auto found = jobs.find(key);
  if (found == jobs.end()) return;
  Job& job = found->second;
  if (!job.under_way.empty()) {
    const bool somebody_waits = job.under_way.size() > 1 || job.receiver || job.draining;
    if (!somebody_waits || job.first_wanted) return;
    job.first_wanted = true;
    const auto [stage, ticket] = job.under_way.front();
    ports[chains[key.phase][stage].port]->want(ticket);  // may settle at once: job is not touched after it
    return;
  }
  if (!job.receiver) return;
  make_batch(job);
  TakenBatch taken{std::move(job.current), job.skip, job.dead_letter, std::move(job.collected)};
  const Receiver receiver = std::move(job.receiver);
  jobs.erase(found);
  receiver(std::move(taken));
}

void PluginClient::LoopSide::stage_done(BatchKey key, Outcome outcome, PluginId plugin) {
  Job& job = jobs.at(key);
  job.under_way.erase(job.under_way.begin());
  job.first_wanted = false;
  ++job.stages;
  job.skip = job.skip || outcome.skip;
  job.dead_letter |= outcome.kind == Outcome::Kind::kError || outcome.kind == Outcome::Kind::kPoison;
  job.current = std::move(outcome.batch);
  job.collected.add(std::move(outcome), plugin, rank);
  if (!job.under_way.empty()) {
    // The next stage waits at its place of its stream for just this.
    const auto [stage, ticket] = job.under_way.front();
    const Stage& next = chains[key.phase][stage];
    if (!next.of_samples) make_batch(job);
    ports[next.port]->supply(ticket, job.current);
  }
  advance(key);
}

void PluginClient::LoopSide::make_batch(Job& job) const {
  if (!are_samples(job.current)) return;
  Result<Batch> batch = collate(job.current);
  if (!batch) {
    spdlog::error("samples that plugins have made unusable are skipped: {}", batch.error().message);
    job.skip = job.dead_letter = true;
    batch = collate(job.raw);
    CHECK(batch.ok(), batch.error().message);
  }
  job.current = std::move(*batch);
  job.raw.clear();
}

}  // namespace bulkhead
