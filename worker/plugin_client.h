// Plugins as the compute thread sees them: notify, call, transform, take.
//
// Two halves.  The public methods below are the compute thread's; they post to
// the loop thread, where the links and the chains of transforms live, and wait
// by running the compute thread's own loop.  Waiting needs no deadline: every
// call settles, at the latest when the plugin is given up.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "host_link.h"
#include "protocol/event_loop.h"
#include "protocol/messages.h"

namespace bulkhead {

// What came back from the plugins of this rank for one or more calls.
struct Collected {
  Control control;
  std::vector<std::int64_t> given_up;  // plugins, by PluginId
  std::vector<Note> notes;
  std::string abort;  // not empty: a plugin's policy says abort, and why

  void add(const Outcome& outcome, PluginId plugin);
};

// A micro-batch after its transforms.
struct TakenBatch {
  Batch batch;
  bool skip = false;
  bool dead_letter = false;  // a transform failed on it for good; its input was kept
  Collected collected;
};

// A micro-batch on its way, as a checkpoint keeps it.
struct PendingBatch {
  std::int64_t step = 0;
  std::int64_t micro = 0;
  std::int64_t stages = 0;  // transforms of the chain it has passed
  bool skip = false;
  bool dead_letter = false;
  Batch batch;
};

// The facts of a call in both forms that a plugin may see.
struct HookContext {
  CallContext rank;
  CallContext job;  // metrics reduced over ranks
  const CallContext& of(const std::string& scope) const { return scope == "job" ? job : rank; }
};

class PluginClient {
 public:
  struct Options {
    Generation generation;
    std::int64_t rank = 0;
    std::string secret;
    std::string dead_letters;  // directory
    StreamOptions stream;
  };
  // What a checkpoint holds of a plugin.
  struct Restored {
    std::optional<Blob> state;
    Seq last_seq{0};
  };

  // `routes` in list order.  `tell_coordinator` is called on `loop`'s thread.
  // Construct and destroy on the compute thread while `loop` runs.
  PluginClient(EventLoop& compute, EventLoop& loop, Options options, const std::vector<PluginRoute>& routes,
               std::map<std::string, Restored> restored, std::function<void(Message)> tell_coordinator);
  ~PluginClient();
  PluginClient(const PluginClient&) = delete;
  PluginClient& operator=(const PluginClient&) = delete;

  // ----- Loop thread: what the coordinator says -----
  void attach_host(const AttachHost& attach);
  void host_lost(const HostLost& lost);

  // ----- Compute thread -----
  // Until every plugin is set up or given up.
  void wait_ready();
  // A plugin of this rank has the hook and is still called.
  bool has(std::string_view hook) const;

  // Sends a step-level hook; collect() brings the replies.
  void notify(std::string_view hook, const HookContext& context);
  // All that notify() has sent and nobody has collected, in the order sent.
  Collected collect();
  // A hook that is waited for.
  Collected call(std::string_view hook, const HookContext& context);

  // The chain of train transforms: effective prefetch of each (README.md of
  // protocol, rule 2).
  const std::vector<std::int64_t>& prefetch() const { return prefetch_; }
  // Puts stage `stage` of a micro-batch into its stream; `raw` with stage 0.
  // `bytes`: what the micro-batch weighs.
  void transform(std::size_t stage, std::int64_t step, std::int64_t micro, const CallContext& context,
                 std::optional<Batch> raw, std::size_t bytes);
  // Asks for the micro-batches of a step ahead of take().
  void want_batches(std::int64_t step, std::int64_t count);
  TakenBatch take(std::int64_t step, std::int64_t micro);
  // Forgets what is on its way: an epoch was cut short.
  void drop_batches();

  // For a checkpoint: state_dict of every plugin that keeps state, at this
  // place of its stream; names without state are absent.
  std::map<std::string, Blob> snapshot(const HookContext& context, Collected& collected);
  std::map<std::string, std::int64_t> last_seqs();
  std::vector<PendingBatch> pending_batches();
  void restore_batches(std::vector<PendingBatch> batches);

  // From now on nobody calls these plugins.
  void retire(const std::vector<std::int64_t>& plugins);

  std::vector<PluginReport> reports();
  // Time this rank stood still for plugins, so far.
  double waited_seconds() const { return waited_seconds_; }

 private:
  struct LoopSide;  // plugin_client_loop.h
  struct Slot {
    PluginId plugin;
    bool settled = false;
    Outcome outcome;
  };
  struct BatchSlot {
    bool settled = false;
    TakenBatch taken;
  };
  struct Known {
    PluginId plugin;
    std::string name;
    std::string scope;
    PluginTraits traits;
    bool retired = false;
  };

  std::vector<std::shared_ptr<Slot>> send(std::string_view hook, const HookContext& context);
  void want_batch(std::pair<std::int64_t, std::int64_t> key);
  Collected gather(const std::vector<std::shared_ptr<Slot>>& slots);
  // Hands the outcome of a call over to the compute thread.
  std::function<void(Outcome)> into(std::shared_ptr<Slot> slot);
  void wait_until(const std::function<bool()>& done);
  // Runs `task` on the loop's thread and waits for it.
  void on_loop(const std::function<void()>& task);

  EventLoop& compute_;
  EventLoop& loop_;
  std::shared_ptr<LoopSide> loop_side_;
  std::vector<Known> plugins_;
  std::vector<std::int64_t> prefetch_;
  std::vector<std::shared_ptr<Slot>> sent_;
  std::map<std::pair<std::int64_t, std::int64_t>, std::shared_ptr<BatchSlot>> wanted_;
  double waited_seconds_ = 0;
};

}  // namespace bulkhead
