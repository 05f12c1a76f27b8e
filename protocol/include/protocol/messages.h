// The whole vocabulary of the wire, as plain values.  README.md in this
// directory says who sends what when; this file says what each holds.
//
// visit() names the fields in wire order; the codec goes by it.  Every message
// carries the generation of its sender's incarnation (Header); a receiver
// drops older ones in one place (channel's owner, see is_stale()).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "protocol/ids.h"
#include "protocol/run_config.h"
#include "protocol/tensor.h"

namespace bulkhead {

inline constexpr std::string_view kMagic = "bulkhead";
inline constexpr std::int64_t kProtocolMin = 1;  // oldest version this build speaks
inline constexpr std::int64_t kProtocolMax = 1;  // newest

// ----- Values that several messages hold -----

// What a notify hook asks for; OR-merged over plugins and ranks.
struct Control {
  bool stop = false;        // end training
  bool stop_epoch = false;  // end this epoch
  bool save = false;        // write a checkpoint
  bool validate = false;    // run a validation
  bool log = false;         // log this step's metrics
  std::string reason;       // of stop, for summary.json

  bool any() const { return stop || stop_epoch || save || validate || log; }
  // The first reason wins.
  void merge(const Control& other);
  friend bool operator==(const Control&, const Control&) = default;
  static void visit(auto& self, auto&& field) {
    field("stop", self.stop);
    field("stop_epoch", self.stop_epoch);
    field("save", self.save);
    field("validate", self.validate);
    field("log", self.log);
    field("reason", self.reason);
  }
};

// The facts of a call, `ctx` of DESIGN §6.7: what changes from call to call.
struct CallContext {
  std::int64_t epoch = 0;
  std::int64_t global_step = 0;
  std::int64_t step_in_epoch = 0;
  std::int64_t epoch_length = 0;  // steps per epoch
  std::int64_t max_steps = 0;     // 0 = by epochs alone
  std::int64_t max_epochs = 0;    // 0 = by steps alone
  std::int64_t micro_batch = 0;   // within the step, transforms only
  double lr = 0;
  double grad_norm = 0;
  std::map<std::string, double> metrics;
  std::optional<double> best_metric;  // lowest validation loss so far
  std::string call_id;                // stable over retries
  bool replaying = false;

  static void visit(auto& self, auto&& field) {
    field("epoch", self.epoch);
    field("global_step", self.global_step);
    field("step_in_epoch", self.step_in_epoch);
    field("epoch_length", self.epoch_length);
    field("max_steps", self.max_steps);
    field("max_epochs", self.max_epochs);
    field("micro_batch", self.micro_batch);
    field("lr", self.lr);
    field("grad_norm", self.grad_norm);
    field("metrics", self.metrics);
    field("best_metric", self.best_metric);
    field("call_id", self.call_id);
    field("replaying", self.replaying);
  }
};

// The facts of a plugin process: what stays the same for an incarnation.
struct Facts {
  std::int64_t rank = 0;
  std::int64_t local_rank = 0;
  std::int64_t node_rank = 0;
  std::int64_t world_size = 1;
  std::int64_t local_world_size = 1;
  bool is_distributed = false;
  bool is_main = true;
  std::string device = "cpu";                  // cpu | cuda:N, the rank's
  std::map<std::string, std::string> map_loc;  // for torch.load(map_location=…): {"cuda:0": device}
  std::string scope = "rank";                  // rank | node | job
  std::string project;                         // the run's name
  std::string run_dir;                         // absolute
  std::int64_t run_seed = 1;
  std::string plugin;  // its name in the run file

  static void visit(auto& self, auto&& field) {
    field("rank", self.rank);
    field("local_rank", self.local_rank);
    field("node_rank", self.node_rank);
    field("world_size", self.world_size);
    field("local_world_size", self.local_world_size);
    field("is_distributed", self.is_distributed);
    field("is_main", self.is_main);
    field("device", self.device);
    field("map_loc", self.map_loc);
    field("scope", self.scope);
    field("project", self.project);
    field("run_dir", self.run_dir);
    field("run_seed", self.run_seed);
    field("plugin", self.plugin);
  }
};

// What a host found out about its plugin's class.
struct PluginTraits {
  std::vector<std::string> hooks;   // those it overrides, by name
  std::vector<std::string> claims;  // DESIGN §6.7
  bool steers = true;
  bool stateless = false;
  bool seeded = true;
  bool stateful = false;   // state_dict gives something to keep
  std::string class_name;  // as found
  std::string checksum;    // sha256 of the source file or library, hex
  std::string language;    // "python 3.11.7", "c++"
  std::int64_t pid = 0;    // of the host

  bool has(std::string_view hook) const;
  static void visit(auto& self, auto&& field) {
    field("hooks", self.hooks);
    field("claims", self.claims);
    field("steers", self.steers);
    field("stateless", self.stateless);
    field("seeded", self.seeded);
    field("stateful", self.stateful);
    field("class_name", self.class_name);
    field("checksum", self.checksum);
    field("language", self.language);
    field("pid", self.pid);
  }
};

// An exception as an answer.
struct Failure {
  std::string type;
  std::string message;
  std::string traceback;  // may be empty

  static void visit(auto& self, auto&& field) {
    field("type", self.type);
    field("message", self.message);
    field("traceback", self.traceback);
  }
};

// Counters of one plugin process on one rank, for summary.json.
struct PluginReport {
  PluginId plugin;
  std::int64_t calls = 0;
  std::int64_t errors = 0;
  std::int64_t retries = 0;  // calls sent again after a death
  std::int64_t replays = 0;
  std::int64_t events_sent = 0;
  std::int64_t events_dropped = 0;
  double p50_us = 0;  // of the time from sending a call to its reply
  double p99_us = 0;
  double waited_seconds = 0;  // the rank stood still for this plugin

  static void visit(auto& self, auto&& field) {
    field("plugin", self.plugin);
    field("calls", self.calls);
    field("errors", self.errors);
    field("retries", self.retries);
    field("replays", self.replays);
    field("events_sent", self.events_sent);
    field("events_dropped", self.events_dropped);
    field("p50_us", self.p50_us);
    field("p99_us", self.p99_us);
    field("waited_seconds", self.waited_seconds);
  }
};

// ----- Handshake, both ways, on every connection -----

// First message of the side that connects (a host or a worker).
struct Hello {
  static constexpr std::string_view kType = "hello";
  Generation generation;
  std::string magic{kMagic};
  std::int64_t version_min = kProtocolMin;
  std::int64_t version_max = kProtocolMax;
  std::string role;       // worker | host
  std::int64_t rank = 0;  // worker: its rank; host: the rank it serves
  PluginId plugin;        // host only
  std::int64_t pid = 0;
  std::string secret;  // what the coordinator gave it in BULKHEAD_SECRET
  std::vector<std::string> capabilities;

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("magic", self.magic);
    field("version_min", self.version_min);
    field("version_max", self.version_max);
    field("role", self.role);
    field("rank", self.rank);
    field("plugin", self.plugin);
    field("pid", self.pid);
    field("secret", self.secret);
    field("capabilities", self.capabilities);
  }
};

// The other side agrees, on this version.
struct Welcome {
  static constexpr std::string_view kType = "welcome";
  Generation generation;
  std::int64_t version = kProtocolMax;

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("version", self.version);
  }
};

// The other side does not agree; a sentence a person can act on.  The refused
// process ends with exit status 2.
struct Refuse {
  static constexpr std::string_view kType = "refuse";
  Generation generation;
  std::string reason;

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("reason", self.reason);
  }
};

// ----- Coordinator ⇄ host -----

// Coordinator → host: this is your plugin.  The host imports it, checks hook
// names and arguments, constructs it (seeded), and answers Loaded or
// LoadFailed.
struct Load {
  static constexpr std::string_view kType = "load";
  Generation generation;
  PluginConfig config;
  Facts facts;

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("config", self.config);
    field("facts", self.facts);
  }
};

struct Loaded {
  static constexpr std::string_view kType = "loaded";
  Generation generation;
  PluginTraits traits;

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("traits", self.traits);
  }
};

struct LoadFailed {
  static constexpr std::string_view kType = "load_failed";
  Generation generation;
  std::string stage;  // find | import | check | arguments | constructor
  std::string key;    // what of the run file's entry is wrong: use | with.NAME | ""
  Failure failure;    // message: one sentence

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("stage", self.stage);
    field("key", self.key);
    field("failure", self.failure);
  }
};

// Coordinator → host: connect here; a worker (perhaps a new one) waits there.
struct Attach {
  static constexpr std::string_view kType = "attach";
  Generation generation;
  std::string endpoint;
  Generation worker_generation;

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("endpoint", self.endpoint);
    field("worker_generation", self.worker_generation);
  }
};

// ----- Worker ⇄ host: the stream of calls -----

// Worker → host.
struct Call {
  static constexpr std::string_view kType = "call";
  Generation generation;  // the worker's
  Seq seq;
  std::string hook;
  std::int64_t deadline_ms = 0;  // from when the host can begin it
  std::int64_t seed_rank = 0;    // the rank that seeds this call (DESIGN §6.5)
  CallContext context;
  Batch batch;  // transforms: the input
  Blob state;   // load_state_dict: what state_dict gave

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("seq", self.seq);
    field("hook", self.hook);
    field("deadline_ms", self.deadline_ms);
    field("seed_rank", self.seed_rank);
    field("context", self.context);
    field("batch", self.batch);
    field("state", self.state);
  }
};

// Host → worker, one for each Call, in order.
struct Reply {
  static constexpr std::string_view kType = "reply";
  Generation generation;  // the host's
  Seq seq;
  std::string hook;
  std::optional<Failure> failure;  // the hook raised; the rest is then empty
  Control control;                 // notify; should_stop's true is control.stop
  Batch batch;                     // transforms: tensors that differ from the input
  std::vector<std::string> kept;   // transforms: names taken over from the input as they are
  Blob state;                      // state_dict
  bool has_state = false;          // false: the plugin keeps none
  double seconds = 0;              // inside the hook

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("seq", self.seq);
    field("hook", self.hook);
    field("failure", self.failure);
    field("control", self.control);
    field("batch", self.batch);
    field("kept", self.kept);
    field("state", self.state);
    field("has_state", self.has_state);
    field("seconds", self.seconds);
  }
};

// Host → worker, inside a call: the deadline starts anew.
struct Progress {
  static constexpr std::string_view kType = "progress";
  Generation generation;
  Seq seq;
  Value detail;

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("seq", self.seq);
    field("detail", self.detail);
  }
};

// Host → worker, inside a call and before its reply: ctx.log and
// ctx.log_metrics.  Takes effect when the reply is accepted.
struct Note {
  static constexpr std::string_view kType = "note";
  Generation generation;
  Seq seq;
  std::string text;                       // ctx.log
  std::map<std::string, double> metrics;  // ctx.log_metrics

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("seq", self.seq);
    field("text", self.text);
    field("metrics", self.metrics);
  }
};

// ----- Coordinator ⇄ worker -----

// What a worker must know of a plugin it talks to.
struct PluginRoute {
  PluginId plugin;
  PluginConfig config;
  PluginTraits traits;

  static void visit(auto& self, auto&& field) {
    field("plugin", self.plugin);
    field("config", self.config);
    field("traits", self.traits);
  }
};

// Coordinator → worker: the run.
struct StartWorker {
  static constexpr std::string_view kType = "start_worker";
  Generation generation;
  RunConfig config;
  Facts facts;                      // facts.plugin is empty
  std::vector<PluginRoute> routes;  // in list order; plugins this rank talks to
  std::string resume;               // checkpoint directory; empty = fresh
  bool restarted = false;           // not the first incarnation of the ranks

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("config", self.config);
    field("facts", self.facts);
    field("routes", self.routes);
    field("resume", self.resume);
    field("restarted", self.restarted);
  }
};

// Rank 0 → coordinator: the store listens here.  Coordinator → other ranks.
struct StoreReady {
  static constexpr std::string_view kType = "store_ready";
  Generation generation;
  std::string host;
  std::int64_t port = 0;

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("host", self.host);
    field("port", self.port);
  }
};

// Coordinator → worker: listen at `endpoint` for this incarnation of a host.
struct AttachHost {
  static constexpr std::string_view kType = "attach_host";
  Generation generation;
  PluginId plugin;
  Generation host_generation;
  std::string endpoint;
  bool lived_on = false;  // the host is older than this worker: setup was done

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("plugin", self.plugin);
    field("host_generation", self.host_generation);
    field("endpoint", self.endpoint);
    field("lived_on", self.lived_on);
  }
};

// Worker → coordinator: the host is connected, set up and, after a restart,
// restored.
struct HostReady {
  static constexpr std::string_view kType = "host_ready";
  Generation generation;
  PluginId plugin;
  Generation host_generation;

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("plugin", self.plugin);
    field("host_generation", self.host_generation);
  }
};

// Worker → coordinator: please end this incarnation: it hangs (deadline) or
// talks garbage.  The call it was in is named for the record.
struct HostFault {
  static constexpr std::string_view kType = "host_fault";
  Generation generation;
  PluginId plugin;
  Generation host_generation;
  std::string kind;    // hang | garbage | refused (setup raised: exit 2)
  std::string reason;  // one sentence
  std::string hook;
  std::int64_t step = -1;
  double seconds = 0;

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("plugin", self.plugin);
    field("host_generation", self.host_generation);
    field("kind", self.kind);
    field("reason", self.reason);
    field("hook", self.hook);
    field("step", self.step);
    field("seconds", self.seconds);
  }
};

// Coordinator → worker: this incarnation is gone.
struct HostLost {
  static constexpr std::string_view kType = "host_lost";
  Generation generation;
  PluginId plugin;
  Generation host_generation;
  std::string reason;      // "SIGSEGV", "exit 0", "hang", …
  bool restarting = true;  // false: the policy gave it up; its `then` applies

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("plugin", self.plugin);
    field("host_generation", self.host_generation);
    field("reason", self.reason);
    field("restarting", self.restarting);
  }
};

// Worker → coordinator: which call a dead host was in, for the record of the
// crash.  Answer to HostLost.
struct HostPost {
  static constexpr std::string_view kType = "host_post";
  Generation generation;
  PluginId plugin;
  Generation host_generation;
  std::string hook;  // empty: none
  std::int64_t step = -1;
  std::string batch;  // "step 40 micro 0", transforms only

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("plugin", self.plugin);
    field("host_generation", self.host_generation);
    field("hook", self.hook);
    field("step", self.step);
    field("batch", self.batch);
  }
};

// Worker → coordinator: one line for metrics.jsonl.  Rank 0 only.
struct MetricsLine {
  static constexpr std::string_view kType = "metrics_line";
  Generation generation;
  Value fields;

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("fields", self.fields);
  }
};

// Worker → coordinator: one line for events.jsonl.
struct EventLine {
  static constexpr std::string_view kType = "event_line";
  Generation generation;
  std::string event;
  Value fields;

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("event", self.event);
    field("fields", self.fields);
  }
};

// Coordinator → anybody: end in order.  A worker saves at the next step
// boundary and reports; a host ends at once.
struct Stop {
  static constexpr std::string_view kType = "stop";
  Generation generation;
  std::string reason;

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("reason", self.reason);
  }
};

// Worker → coordinator: training ended on this rank, well or not.
struct WorkerDone {
  static constexpr std::string_view kType = "worker_done";
  Generation generation;
  std::string status;  // completed | stopped | interrupted | failed | refused | aborted
  std::string reason;
  std::string key;  // refused: the run file's key that is wrong, dotted
  Value result;     // rank 0: final_loss, validation, params_sha256, steps, … (README.md)
  std::vector<PluginReport> plugins;

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("status", self.status);
    field("reason", self.reason);
    field("key", self.key);
    field("result", self.result);
    field("plugins", self.plugins);
  }
};

// Anybody → coordinator, from the thread that does the work, at least each
// kHeartbeatInterval while idle; a worker adds its step.
struct Heartbeat {
  static constexpr std::string_view kType = "heartbeat";
  Generation generation;
  std::int64_t step = 0;

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("step", self.step);
  }
};

using Message = std::variant<Hello, Welcome, Refuse, Load, Loaded, LoadFailed, Attach, Call, Reply, Progress,
                             Note, StartWorker, StoreReady, AttachHost, HostReady, HostFault, HostLost,
                             HostPost, MetricsLine, EventLine, Stop, WorkerDone, Heartbeat>;

Generation generation_of(const Message& message);
std::string_view type_of(const Message& message);

// What a Hello must say to be let in; an empty string, or the sentence for
// Refuse.
std::string refusal(const Hello& hello, std::string_view expected_secret);

}  // namespace bulkhead
