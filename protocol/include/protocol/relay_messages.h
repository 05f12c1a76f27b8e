// What ranks say to each other about a plugin process that they share: calls
// on their way to its home rank, and how they ended.
//
// Plain values; rule 14 in README.md of this directory says who sends what
// when, visit() names the fields in wire order (messages.h).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/call_values.h"

namespace bulkhead {

// Rank → home rank: puts a call at the end of this rank's part of the stream.
struct RelayCall {
  static constexpr std::string_view kType = "relay_call";
  Generation generation;
  PluginId plugin;
  std::int64_t number = 0;  // from 1 for each plugin and rank
  std::string hook;
  CallContext context;
  bool has_input = false;  // else a RelaySupply follows, or the hook takes none
  std::int64_t bytes = 0;  // what the input weighs in the journal
  Batch batch;

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("plugin", self.plugin);
    field("number", self.number);
    field("hook", self.hook);
    field("context", self.context);
    field("has_input", self.has_input);
    field("bytes", self.bytes);
    field("batch", self.batch);
  }
};

struct RelaySupply {
  static constexpr std::string_view kType = "relay_supply";
  Generation generation;
  PluginId plugin;
  std::int64_t number = 0;
  Batch batch;

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("plugin", self.plugin);
    field("number", self.number);
    field("batch", self.batch);
  }
};

// Somebody takes the result; a RelayOutcome follows.
struct RelayWant {
  static constexpr std::string_view kType = "relay_want";
  Generation generation;
  PluginId plugin;
  std::int64_t number = 0;

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("plugin", self.plugin);
    field("number", self.number);
  }
};

// Home rank → rank: how the call ended (Outcome of worker/plugin_stream.h).
struct RelayOutcome {
  static constexpr std::string_view kType = "relay_outcome";
  Generation generation;
  PluginId plugin;
  std::int64_t number = 0;
  std::string kind;  // answer | error | poison | given_up
  Control control;
  Batch batch;    // transforms
  Batch weights;  // ctx.load_weights
  bool skip = false;
  bool abort = false;
  bool fatal = false;
  std::string reason;
  std::vector<std::string> texts;         // ctx.log
  std::map<std::string, double> metrics;  // ctx.log_metrics

  static void visit(auto& self, auto&& field) {
    field("generation", self.generation);
    field("plugin", self.plugin);
    field("number", self.number);
    field("kind", self.kind);
    field("control", self.control);
    field("batch", self.batch);
    field("weights", self.weights);
    field("skip", self.skip);
    field("abort", self.abort);
    field("fatal", self.fatal);
    field("reason", self.reason);
    field("texts", self.texts);
    field("metrics", self.metrics);
  }
};

}  // namespace bulkhead
