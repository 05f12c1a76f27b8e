// What a plugin host hears and says: the handshake, its plugin, its calls.
//
// Plain values; README.md in this directory says who sends what when, visit()
// names the fields in wire order (messages.h).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/call_values.h"

namespace bulkhead {

inline constexpr std::string_view kMagic = "bulkhead";
inline constexpr std::int64_t kProtocolMin = 1;  // oldest version this build speaks
inline constexpr std::int64_t kProtocolMax = 1;  // newest

// Capabilities: what a host can beside ZeroMQ.
inline constexpr std::string_view kRing = "ring";            // messages through shared memory
inline constexpr std::string_view kSharedMemory = "memory";  // tensors in shared memory
inline constexpr std::string_view kDevice =
    "cuda:";  // … of this GPU: its UUID follows, 32 hexadecimal digits

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
  std::vector<std::string> capabilities{};  // of those in the hello, the ones that are used from here on

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("version", self.version);
    field("capabilities", self.capabilities);
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
  std::string key;    // what of the run file's entry is wrong: use | device | with.NAME | ""
  Failure failure;    // message: one sentence

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("stage", self.stage);
    field("key", self.key);
    field("failure", self.failure);
  }
};

// Coordinator → host, before its first Attach and only where it has configure:
// the run as configured so far, each plugin's changes applied in list order.
// Every incarnation gets what the first one got.
struct Configure {
  static constexpr std::string_view kType = "configure";
  Generation generation;
  Value config;  // as in run.yaml

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("config", self.config);
  }
};

struct Configured {
  static constexpr std::string_view kType = "configured";
  Generation generation;
  Value changes;                   // dotted keys → values; used of the first incarnation on the lowest rank
  std::optional<Failure> failure;  // it raised, or what it returned cannot be carried

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("changes", self.changes);
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

// Memory on the rank's GPU, the host's from a call to its reply.  Handles are
// CUDA's, as 128 hexadecimal digits.
struct Region {
  std::int64_t segment = 0;  // its number among the worker's
  std::int64_t bytes = 0;
  std::string memory;          // cudaIpcMemHandle_t
  std::string ready;           // cudaIpcEventHandle_t: the input is there when that event has come
  std::vector<Piece> tensors;  // the input; `of` is empty, offsets are into the region

  static void visit(auto& self, auto&& field) {
    field("segment", self.segment);
    field("bytes", self.bytes);
    field("memory", self.memory);
    field("ready", self.ready);
    field("tensors", self.tensors);
  }
};

// Worker → host.
struct Call {
  static constexpr std::string_view kType = "call";
  Generation generation;  // the worker's
  Seq seq;
  std::string hook;
  std::int64_t deadline_ms = 0;  // from when the host can begin it
  std::int64_t seed_rank = 0;    // the rank that seeds this call (DESIGN §6.5)
  CallContext context;
  Batch batch;                          // transforms: the input
  Blob state;                           // load_state_dict: what state_dict gave
  std::vector<std::string> writable{};  // tensors that the plugin may change where they lie
  std::optional<Region> region{};       // where the input lies instead of in `batch`

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("seq", self.seq);
    field("hook", self.hook);
    field("deadline_ms", self.deadline_ms);
    field("seed_rank", self.seed_rank);
    field("context", self.context);
    field("batch", self.batch);
    field("state", self.state);
    field("writable", self.writable);
    field("region", self.region);
  }
};

// Host → worker, one for each Call, in order.
struct Reply {
  static constexpr std::string_view kType = "reply";
  Generation generation;  // the host's
  Seq seq;
  std::string hook;
  std::optional<Failure> failure;  // the hook raised; the rest is then empty
  bool fatal = false;              // … one of the class's `raises`: it ends the run
  Control control;                 // notify; should_stop's true is control.stop
  Batch batch;                     // transforms: tensors that differ from the input; notify: ctx.load_weights
  std::vector<std::string> kept;   // transforms: names taken over from the input as they are
  Blob state;                      // state_dict
  bool has_state = false;          // false: the plugin keeps none
  double seconds = 0;              // inside the hook
  std::vector<Place> held{};    // pieces of the worker's that the plugin goes on looking at; the rest of what
                                // came with the call is given back
  std::vector<Piece> pieces{};  // transforms: tensors that are pieces of the input, as that now is
  std::vector<Piece> in_region{};  // transforms: tensors that lie in the call's region; `of` is empty

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("seq", self.seq);
    field("hook", self.hook);
    field("failure", self.failure);
    field("fatal", self.fatal);
    field("control", self.control);
    field("batch", self.batch);
    field("kept", self.kept);
    field("state", self.state);
    field("has_state", self.has_state);
    field("seconds", self.seconds);
    field("held", self.held);
    field("pieces", self.pieces);
    field("in_region", self.in_region);
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

// Host → worker, inside a call: what the plugin needs in order to go on.  The
// host does nothing until the Answer is there, and the call's deadline rests.
struct Ask {
  static constexpr std::string_view kType = "ask";
  Generation generation;
  Seq seq;
  std::int64_t number = 0;  // from 0 within its call; the same again when the call is made again
  std::string what;         // all_gather | weights
  Batch batch;              // all_gather: one uint8 tensor, whose bytes are the host's own business

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("seq", self.seq);
    field("number", self.number);
    field("what", self.what);
    field("batch", self.batch);
  }
};

// Worker → host.
struct Answer {
  static constexpr std::string_view kType = "answer";
  Generation generation;
  Seq seq;
  std::int64_t number = 0;
  std::optional<Failure> failure;  // raised where the plugin asked
  Batch batch;  // all_gather: tensors named "0", "1", … by rank, absent where the plugin was
                // given up; weights: every parameter, in the model's order

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("seq", self.seq);
    field("number", self.number);
    field("failure", self.failure);
    field("batch", self.batch);
  }
};

// Both ways, where memory is shared: before the next message that names any.
struct MemoryNews {
  static constexpr std::string_view kType = "memory_news";
  Generation generation;
  std::vector<Place> unused;       // pieces of the receiver's, each once for each time it was named
  std::vector<std::int64_t> gone;  // segments of the sender's that it names no more

  bool any() const { return !unused.empty() || !gone.empty(); }
  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("unused", self.unused);
    field("gone", self.gone);
  }
};

}  // namespace bulkhead
