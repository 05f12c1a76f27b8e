// PluginClient's micro-batches: put into their chain, asked for, taken, kept for
// a checkpoint.
#include <algorithm>
#include <chrono>
#include <utility>

#include "plugin_client_loop.h"

namespace bulkhead {
namespace {

// As a file takes it.
Batch dense_copy(const Batch& batch) {
  Batch copy;
  for (const Tensor& tensor : in_host_memory(batch)) copy.push_back(dense(tensor));
  return copy;
}

}  // namespace

const std::vector<std::int64_t>& PluginClient::prefetch(Phase phase) const { return prefetch_.at(phase); }

void PluginClient::transform(std::size_t stage, BatchKey key, const CallContext& context,
                             std::optional<RawBatch> raw, std::size_t bytes) {
  const Known& plugin = plugins_[stage_ports_.at(key.phase)[stage]];
  loop_.post([side = loop_side_, stage, key, context = own(context, plugin), raw = std::move(raw),
              bytes]() mutable { side->transform(stage, key, std::move(context), std::move(raw), bytes); });
}

void PluginClient::want_batch(BatchKey key) {
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

TakenBatch PluginClient::take(BatchKey key) {
  want_batch(key);  // not those before it: they have been taken
  const auto slot = wanted_.extract(key).mapped();
  wait_until([&] { return slot->settled; });
  return std::move(slot->taken);
}

void PluginClient::drop_batches() {
  pending_batches();  // what is under way ends first: the streams stay whole
  wanted_.clear();
  on_loop([this] { loop_side_->jobs.clear(); });
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
        batches.push_back(
            {key.step, key.micro, job.stages, job.skip, job.dead_letter, dense_copy(job.current)});
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
    const auto all_stages = static_cast<std::int64_t>(prefetch().size());
    batches.push_back(
        {key.step, key.micro, all_stages, taken.skip, taken.dead_letter, dense_copy(taken.batch)});
  }
  std::sort(batches.begin(), batches.end(), [](const PendingBatch& a, const PendingBatch& b) {
    return std::pair(a.step, a.micro) < std::pair(b.step, b.micro);
  });
  return batches;
}

void PluginClient::restore_batches(std::vector<PendingBatch> batches) {
  on_loop([&] {
    for (PendingBatch& pending : batches) {
      LoopSide::Job& job = loop_side_->jobs[{Phase::kTrain, pending.step, pending.micro}];
      job.current = job.raw = std::move(pending.batch);
      job.stages = pending.stages;
      job.skip = pending.skip;
      job.dead_letter = pending.dead_letter;
    }
  });
}

}  // namespace bulkhead
