// The loop thread's half of PluginClient: ports, who waits for which call, and
// the chains of transforms.  Internal to plugin_client.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "dead_letter.h"
#include "plugin_client.h"

namespace bulkhead {

struct PluginClient::LoopSide {
  using Taker = std::function<void(Outcome)>;
  using Receiver = std::function<void(TakenBatch)>;

  struct Stage {
    std::size_t port = 0;
    std::string hook;
    bool of_samples = false;  // before the samples are made a batch
  };

  // A micro-batch in the chain.
  struct Job {
    Batch current;
    Batch raw;                // samples as they came, until they are made a batch
    std::int64_t stages = 0;  // passed, or skipped because retired
    std::vector<std::pair<std::size_t, std::int64_t>> under_way;  // (stage, ticket), oldest first
    bool first_wanted = false;                                    // of under_way
    bool draining = false;                                        // a checkpoint wants all of it
    bool skip = false;
    bool dead_letter = false;
    Collected collected;  // of all stages so far
    Receiver receiver;    // the compute thread, once it wants it
  };

  explicit LoopSide(EventLoop& own_loop) : loop(own_loop) {}

  EventLoop& loop;
  Arena arena{default_arena_bytes()};
  std::unique_ptr<DeviceMemory> device;  // of the rank's GPU, where a plugin asks for it
  std::int64_t rank = 0;
  std::function<Result<Batch>(const Batch&)> collate;
  std::unique_ptr<RelayHub> hub;                   // home of shared processes
  RelayHub* hub_address = nullptr;                 // of hub, for the ports made before it
  std::unique_ptr<RelayLink> away;                 // to them
  std::vector<std::unique_ptr<PluginPort>> ports;  // before what they point to they must go
  std::map<Phase, std::vector<Stage>> chains;
  std::map<std::pair<std::size_t, std::int64_t>, Taker> takers;  // (port, ticket)
  std::map<BatchKey, Job> jobs;

  PluginPort* port_of(PluginId plugin);
  HostLink* link_of(PluginId plugin);
  void settle(std::size_t port, std::int64_t ticket, Outcome outcome);
  RelayHub::Handlers hub_handlers();

  void transform(std::size_t stage, BatchKey key, CallContext context, std::optional<RawBatch> raw,
                 std::size_t bytes);
  // Moves the job on: asks for its oldest stage if the next one or the taker
  // waits for it, hands the batch over when nothing is under way.
  void advance(BatchKey key);
  void stage_done(BatchKey key, Outcome outcome, PluginId plugin);
  // Samples become the batch that the model takes; nothing where that is done.
  void make_batch(Job& job) const;
};

}  // namespace bulkhead
