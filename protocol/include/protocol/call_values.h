// What several messages hold: facts, contexts, Control, reports.
//
// Values only; visit() names the fields in wire order (messages.h).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/ids.h"
#include "protocol/run_config.h"
#include "protocol/tensor.h"

namespace bulkhead {

// ctx.set: a setting of the run that a plugin changes while it trains.
struct Setting {
  std::string name;             // grad_accum | log_every | lr | save_every | validate_every
  std::optional<double> value;  // lr alone may be none: the schedule's again
  std::int64_t plugin = 0;      // who said so: place in the run file (the worker fills these two in)
  std::int64_t rank = 0;

  friend bool operator==(const Setting&, const Setting&) = default;
  static void visit(auto& self, auto&& field) {
    field("name", self.name);
    field("value", self.value);
    field("plugin", self.plugin);
    field("rank", self.rank);
  }
};

// What a notify hook asks for; OR-merged over plugins and ranks.
struct Control {
  bool stop = false;        // end training
  bool stop_epoch = false;  // end this epoch
  bool save = false;        // write a checkpoint
  bool validate = false;    // run a validation
  bool log = false;         // log this step's metrics
  std::string reason;       // of stop, for summary.json
  std::vector<Setting> settings;

  bool any() const { return stop || stop_epoch || save || validate || log || !settings.empty(); }
  // The first reason wins; settings are put behind one another (see chosen()).
  void merge(const Control& other);
  friend bool operator==(const Control&, const Control&) = default;
  static void visit(auto& self, auto&& field) {
    field("stop", self.stop);
    field("stop_epoch", self.stop_epoch);
    field("save", self.save);
    field("validate", self.validate);
    field("log", self.log);
    field("reason", self.reason);
    field("settings", self.settings);
  }
};

// One setting of each name: of several the plugin that is last in the run file
// wins, within a plugin the lowest rank, on that rank the last said.
std::vector<Setting> chosen(const std::vector<Setting>& settings);

// The facts of a call, `ctx` of DESIGN §6.7: what changes from call to call.
struct CallContext {
  std::int64_t epoch = 0;
  std::int64_t global_step = 0;
  std::int64_t step_in_epoch = 0;
  std::int64_t epoch_length = 0;  // steps per epoch
  std::int64_t max_steps = 0;     // 0 = by epochs alone
  std::int64_t max_epochs = 0;    // 0 = by steps alone
  std::int64_t micro_batch = 0;   // within the step; validation and test: the batch's number
  double lr = 0;
  double grad_norm = 0;
  std::map<std::string, double> metrics;
  std::optional<double> best_metric;  // lowest validation loss so far
  std::string call_id;                // stable over retries
  bool replaying = false;
  std::string exception;  // on_exception: why the run ends
  // A process that several ranks share: whose call it is.  Else as in Facts.
  std::optional<std::int64_t> rank;
  std::optional<std::int64_t> local_rank;
  std::string device;

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
    field("exception", self.exception);
    field("rank", self.rank);
    field("local_rank", self.local_rank);
    field("device", self.device);
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

}  // namespace bulkhead
