// The loop thread's half of PluginClient: links, who waits for which call, and
// the chains of transforms.  Internal to plugin_client.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "dead_letter.h"
#include "plugin_client.h"

namespace bulkhead {

struct PluginClient::LoopSide {
  using Taker = std::function<void(Outcome)>;
  using Receiver = std::function<void(TakenBatch)>;

  // A micro-batch in the chain.
  struct Job {
    Batch current;
    std::size_t bytes = 0;
    std::int64_t stages = 0;                             // passed, or skipped because retired
    std::vector<std::pair<std::size_t, Seq>> under_way;  // (link, call), oldest first
    bool first_wanted = false;                           // of under_way
    bool draining = false;                               // a checkpoint wants all of it
    bool skip = false;
    bool dead_letter = false;
    Collected collected;  // of all stages so far
    Receiver receiver;    // the compute thread, once it wants it
  };

  EventLoop& loop;
  std::vector<std::unique_ptr<HostLink>> links;
  std::vector<std::size_t> chain;                                // indices into links
  std::map<std::pair<std::size_t, std::int64_t>, Taker> takers;  // (link, seq)
  std::map<std::pair<std::int64_t, std::int64_t>, Job> jobs;     // (step, micro)

  HostLink* link_of(PluginId plugin);
  void settle(std::size_t link, Seq seq, Outcome outcome);

  void transform(std::size_t stage, std::int64_t step, std::int64_t micro, CallContext context,
                 std::optional<Batch> raw, std::size_t bytes);
  // Moves the job on: asks for its oldest stage if the next one or the taker
  // waits for it, hands the batch over when nothing is under way.
  void advance(std::pair<std::int64_t, std::int64_t> key);
  void stage_done(std::pair<std::int64_t, std::int64_t> key, Outcome outcome, PluginId plugin);
};

}  // namespace bulkhead
