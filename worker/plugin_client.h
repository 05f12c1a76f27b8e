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
#include <set>
#include <string>
#include <vector>

#include "plugin_port.h"
#include "protocol/event_loop.h"
#include "protocol/messages.h"

namespace bulkhead {

// What came back from the plugins of this rank for one or more calls.
struct Collected {
  Control control;
  std::vector<std::int64_t> given_up;  // plugins, by PluginId
  std::vector<Note> notes;
  std::string abort;  // not empty: a plugin's policy says abort, and why
  std::string fatal;  // not empty: one of a plugin's `raises`, and which
  // ctx.load_weights: of the plugin that is last in list order; none: −1.
  std::int64_t weights_of = -1;
  Batch weights;

  // `rank`: whose call it was.
  void add(Outcome outcome, PluginId plugin, std::int64_t rank);
};

// What a batch is for: each has a chain of its own.
enum class Phase { kTrain, kValidate, kTest };

// What training samples are before they are a batch; which hooks see them.
enum class SampleKind {
  kNone,
  kCaptions,  // transform_image, transform_caption, transform_sample
  kRows,      // collate; preprocess, keep and encode have seen the rows
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

// A micro-batch in a chain: `step` is 0 outside of training, `micro` then the
// batch's number.
struct BatchKey {
  Phase phase = Phase::kTrain;
  std::int64_t step = 0;
  std::int64_t micro = 0;
  friend auto operator<=>(const BatchKey&, const BatchKey&) = default;
};

// A micro-batch at the head of its chain.
struct RawBatch {
  Batch batch;
  std::function<Batch()> again;  // makes it anew, the same bytes; any thread
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
    Facts facts;  // of this rank
    std::string secret;
    std::string dead_letters;         // directory
    std::vector<std::string> relays;  // StartWorker's
    StreamOptions stream;
    SampleKind samples = SampleKind::kNone;
    std::optional<int> gpu;  // the rank's, as CUDA counts
    // Samples as plugins see them to a batch as the model takes it; called on
    // the loop thread, while batches are transformed.
    std::function<Result<Batch>(const Batch&)> collate;
    std::function<Batch()> weights;  // every parameter, a copy; called on the compute thread
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
  void gather_wanted(const GatherWanted& wanted);
  void gather_done(GatherDone done);

  // ----- Compute thread -----
  // Until every plugin is set up or given up.
  void wait_ready();
  // A plugin of this rank has the hook and is still called.
  bool has(std::string_view hook) const;

  // Sends a step-level hook whose Control belongs to the exchange of step `due`.
  // kWithNext: with what is sent next, or when send_now() says so.  Asks for no
  // memory once it has been called for a while.
  enum class When { kNow, kWithNext };
  void notify(std::string_view hook, const HookContext& context, std::int64_t due, When when = When::kNow);
  void send_now() { loop_.wake(); }
  // What notify() has sent with a step up to `due` and nobody has collected, in
  // the order sent.
  Collected collect(std::int64_t due);
  // Ranks that share a process make the same calls: this one has nothing to
  // say at this place.
  void pass(std::string_view hook);
  void pass_stage(Phase phase, std::size_t stage);
  // This rank ends alone: it no longer calls what it shares.
  void leave_shared();
  // A hook that is waited for.
  Collected call(std::string_view hook, const HookContext& context);

  // ----- The data set stage: rank 0, before training -----
  // The plugins that have `hook`, in list order, as places for call_rows().
  std::vector<std::size_t> places_of(std::string_view hook) const;
  const std::string& name_of(std::size_t place) const { return plugins_[place].name; }
  PluginId id_of(std::size_t place) const { return plugins_[place].plugin; }
  // One call of one plugin, waited for; Outcome::batch is its reply as it came.
  Outcome call_rows(std::size_t place, std::string_view hook, const CallContext& context, Batch input);
  // As snapshot() and last_seqs(), of those plugins that have a hook of the stage.
  std::map<std::string, Restored> stage_states(const HookContext& context);

  // The chain of transforms: effective prefetch of each stage (README.md of
  // protocol, rule 2).
  const std::vector<std::int64_t>& prefetch(Phase phase = Phase::kTrain) const;
  // Batches begin as samples: a plugin has a hook that takes them.
  bool takes_samples(Phase phase) const { return takes_samples_.contains(phase); }
  // The last of the chain, which is not empty.
  const std::string& last_hook(Phase phase) const { return last_hook_.at(phase); }
  // Puts stage `stage` of a micro-batch into its stream; `raw` with stage 0.
  // `bytes`: what the micro-batch weighs.
  void transform(std::size_t stage, BatchKey key, const CallContext& context, std::optional<RawBatch> raw,
                 std::size_t bytes);
  // Asks for a micro-batch ahead of take().
  void want_batch(BatchKey key);
  TakenBatch take(BatchKey key);
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
    std::size_t port = 0;
    bool settled = false;
    Outcome outcome;
  };
  struct BatchSlot {
    bool settled = false;
    TakenBatch taken;
  };
  // A step-level hook on its way.  The compute thread fills it in and has it
  // back once it is settled; in between it is the loop thread's.
  struct Event {
    std::string_view hook;  // the table's
    std::int64_t due = 0;
    std::vector<std::size_t> callees;  // places in plugins_
    HookContext context;
    std::vector<Outcome> outcomes;  // of `callees`
    std::size_t unanswered = 0;
    bool settled = false;
  };
  struct Known {
    PluginId plugin;
    std::string name;
    std::string scope;
    PluginTraits traits;
    bool is_home = true;  // its stream is this rank's
    bool retired = false;
  };

  // The hook of a plugin that this rank calls.
  bool calls(const Known& plugin, std::string_view hook) const;
  void open(const Options& options, const std::vector<PluginRoute>& routes,
            const std::map<std::string, Restored>& restored,
            const std::function<void(Message)>& tell_coordinator);
  HostLink::Surroundings surroundings(const Options& options, const PluginRoute& route,
                                      const std::function<void(Message)>& tell_coordinator);
  void make_chains(const std::vector<PluginRoute>& routes, SampleKind samples);
  static void warn_of_idle_hooks(const std::vector<PluginRoute>& routes, SampleKind samples);
  CallContext own(CallContext context, const Known& plugin) const;
  static bool has_stage(const Known& plugin);
  std::map<std::string, Blob> snapshot_of(const std::function<bool(const Known&)>& wanted,
                                          const HookContext& context, Collected& collected);
  std::vector<std::shared_ptr<Slot>> send(std::string_view hook, const HookContext& context);
  using Callees = std::map<std::string_view, std::vector<std::size_t>>;
  const Callees::value_type& callees_of(std::string_view hook);
  void deliver(Event& event);
  void answered(Event& event, std::size_t callee, Outcome outcome);
  void snapshot_after(const std::vector<std::size_t>& ports);
  void pass_port(std::size_t port);
  Collected gather(const std::vector<std::shared_ptr<Slot>>& slots);
  // Hands the outcome of a call over to the compute thread.
  std::function<void(Outcome)> into(std::shared_ptr<Slot> slot);
  void wait_until(const std::function<bool()>& done);
  // Runs `task` on the loop's thread and waits for it.
  void on_loop(const std::function<void()>& task);

  EventLoop& compute_;
  EventLoop& loop_;
  Facts facts_;
  std::shared_ptr<LoopSide> loop_side_;
  std::vector<Known> plugins_;
  std::map<Phase, std::vector<std::int64_t>> prefetch_;
  std::map<Phase, std::vector<std::size_t>> stage_ports_;
  std::set<Phase> takes_samples_;
  std::map<Phase, std::string> last_hook_;
  Callees callees_;  // places in plugins_ by hook, as far as asked for
  std::vector<std::unique_ptr<Event>> sent_, idle_;
  std::map<BatchKey, std::shared_ptr<BatchSlot>> wanted_;
  double waited_seconds_ = 0;
};

}  // namespace bulkhead
