// What a rank hears and says: the run, its hosts' lives and deaths, reports.
//
// Plain values; README.md in this directory says who sends what when, visit()
// names the fields in wire order (messages.h).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/call_values.h"

namespace bulkhead {

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
  std::vector<std::string>
      relays;  // by rank: where its calls to shared plugin processes reach rank 0; empty: none

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("config", self.config);
    field("facts", self.facts);
    field("routes", self.routes);
    field("resume", self.resume);
    field("restarted", self.restarted);
    field("relays", self.relays);
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

// Worker → coordinator: this rank's part of an all-gather of a plugin, or that
// the call is over, so that none will come.
struct GatherPart {
  static constexpr std::string_view kType = "gather_part";
  Generation generation;
  PluginId plugin;
  std::string call;  // "<position in the plugin's stream> <hook> at step <step>": the same on every rank
  std::int64_t number = 0;
  std::string state;  // part | over (returned without asking) | gone (the plugin was given up here)
  Batch batch;        // part: one tensor

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("plugin", self.plugin);
    field("call", self.call);
    field("number", self.number);
    field("state", self.state);
    field("batch", self.batch);
  }
};

// Coordinator → worker: another rank asks in this call; say your part, or that
// the call is over here.
struct GatherWanted {
  static constexpr std::string_view kType = "gather_wanted";
  Generation generation;
  PluginId plugin;
  std::string call;
  std::int64_t number = 0;

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("plugin", self.plugin);
    field("call", self.call);
    field("number", self.number);
  }
};

// Coordinator → every worker of the plugin: all parts are there.
struct GatherDone {
  static constexpr std::string_view kType = "gather_done";
  Generation generation;
  PluginId plugin;
  std::string call;
  std::int64_t number = 0;
  std::string missing;  // not empty: a sentence, some rank returned without asking
  Batch batch;          // as in Answer

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("plugin", self.plugin);
    field("call", self.call);
    field("number", self.number);
    field("missing", self.missing);
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

// Worker → coordinator, with its heartbeats: where its compute threads run, so
// that hosts can be kept off them.
struct CpuUse {
  static constexpr std::string_view kType = "cpu_use";
  Generation generation;
  std::vector<std::int64_t> cpus{};
  double waited_seconds = 0;  // stood still for plugins, since the run began

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("cpus", self.cpus);
    field("waited_seconds", self.waited_seconds);
  }
};

}  // namespace bulkhead
