#include "plugin_client_loop.h"

#include <utility>

namespace bulkhead {

HostLink* PluginClient::LoopSide::link_of(PluginId plugin) {
  for (const auto& link : links) {
    if (link->route().plugin == plugin) return link.get();
  }
  return nullptr;
}

void PluginClient::LoopSide::settle(std::size_t link, Seq seq, Outcome outcome) {
  const auto found = takers.find({link, seq.value});
  CHECK(found != takers.end(), "a call that nobody waits for");
  const Taker taker = std::move(found->second);
  takers.erase(found);
  taker(std::move(outcome));
}

void PluginClient::LoopSide::transform(std::size_t stage, std::int64_t step, std::int64_t micro,
                                       CallContext context, std::optional<Batch> raw, std::size_t bytes) {
  const std::pair key{step, micro};
  Job& job = jobs[key];
  if (raw) {
    job.current = std::move(*raw);
    job.bytes = bytes;
  }
  const std::size_t link = chain[stage];
  if (links[link]->stream().retired()) {
    ++job.stages;
    return;
  }
  const bool has_input = job.under_way.empty();
  const Seq seq = links[link]->submit("transform_train_batch", std::move(context),
                                      has_input ? std::optional(job.current) : std::nullopt, bytes);
  job.under_way.emplace_back(link, seq);
  takers[{link, seq.value}] = [this, key, plugin = links[link]->route().plugin](Outcome outcome) {
    stage_done(key, std::move(outcome), plugin);
  };
  advance(key);
}

void PluginClient::LoopSide::advance(std::pair<std::int64_t, std::int64_t> key) {
  const auto found = jobs.find(key);
  if (found == jobs.end()) return;
  Job& job = found->second;
  if (!job.under_way.empty()) {
    const bool somebody_waits = job.under_way.size() > 1 || job.receiver || job.draining;
    if (!somebody_waits || job.first_wanted) return;
    job.first_wanted = true;
    const auto [link, seq] = job.under_way.front();
    links[link]->want(seq);  // may settle at once: job is not touched after it
    return;
  }
  if (!job.receiver) return;
  TakenBatch taken{std::move(job.current), job.skip, job.dead_letter, std::move(job.collected)};
  const Receiver receiver = std::move(job.receiver);
  jobs.erase(found);
  receiver(std::move(taken));
}

void PluginClient::LoopSide::stage_done(std::pair<std::int64_t, std::int64_t> key, Outcome outcome,
                                        PluginId plugin) {
  Job& job = jobs.at(key);
  job.under_way.erase(job.under_way.begin());
  job.first_wanted = false;
  ++job.stages;
  job.skip = job.skip || outcome.skip;
  job.dead_letter |= outcome.kind == Outcome::Kind::kError || outcome.kind == Outcome::Kind::kPoison;
  job.current = std::move(outcome.batch);
  job.collected.add(outcome, plugin);
  if (!job.under_way.empty()) {
    // The next stage waits at its place of its stream for just this.
    const auto [link, seq] = job.under_way.front();
    links[link]->supply(seq, job.current);
  }
  advance(key);
}

}  // namespace bulkhead
