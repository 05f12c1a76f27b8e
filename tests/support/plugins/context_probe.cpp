// Writes down what ctx says, in RUN/witness/NAME-RANK.jsonl: the C++ side of
// tests/fault/plugins/witness.py, whose lines must be the same.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "bulkhead/plugin.h"

namespace tests {

std::string json(std::int64_t value) { return std::to_string(value); }
std::string json(bool value) { return value ? "true" : "false"; }
std::string json(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.17g", value);
  return text;
}
std::string json(const std::string& value) { return '"' + value + '"'; }  // nothing here needs escapes
std::string json(const std::optional<double>& value) { return value ? json(*value) : "null"; }

template <class Value>
std::string json(const std::map<std::string, Value>& values) {
  std::string text;
  for (const auto& [name, value] : values)
    text += (text.empty() ? "" : ", ") + json(name) + ": " + json(value);
  return "{" + text + "}";
}

struct ContextProbe : bulkhead::Plugin {
  void on_train_start(bulkhead::Context& ctx) override { see("on_train_start", ctx); }
  void on_epoch_start(bulkhead::Context& ctx) override { see("on_epoch_start", ctx); }
  void on_step_start(bulkhead::Context& ctx) override { see("on_step_start", ctx); }
  void transform_train_batch(bulkhead::Batch&, bulkhead::Context& ctx) override {
    see("transform_train_batch", ctx);
  }
  void on_step_end(bulkhead::Context& ctx) override { see("on_step_end", ctx); }
  void on_validate_end(bulkhead::Context& ctx) override { see("on_validate_end", ctx); }
  void on_train_end(bulkhead::Context& ctx) override { see("on_train_end", ctx); }

  void see(const char* hook, bulkhead::Context& ctx) {
    const std::filesystem::path folder = std::filesystem::path(ctx.run_dir) / "witness";
    std::filesystem::create_directories(folder);
    std::ofstream file(folder / (ctx.plugin + "-" + std::to_string(ctx.rank) + ".jsonl"), std::ios::app);
    file << R"({"hook": ")" << hook << '"';
    const auto field = [&](const char* name, const auto& value) {
      file << R"(, ")" << name << R"(": )" << json(value);
    };
    field("rank", ctx.rank);
    field("local_rank", ctx.local_rank);
    field("node_rank", ctx.node_rank);
    field("world_size", ctx.world_size);
    field("local_world_size", ctx.local_world_size);
    field("is_distributed", ctx.is_distributed);
    field("is_main", ctx.is_main);
    field("device", ctx.device);
    field("map_loc", ctx.map_loc);
    field("generation", ctx.generation);
    field("scope", ctx.scope);
    field("epoch", ctx.epoch);
    field("global_step", ctx.global_step);
    field("step_in_epoch", ctx.step_in_epoch);
    field("epoch_length", ctx.epoch_length);
    field("max_steps", ctx.max_steps);
    field("max_epochs", ctx.max_epochs);
    field("micro_batch", ctx.micro_batch);
    field("lr", ctx.lr);
    field("grad_norm", ctx.grad_norm);
    field("metrics", ctx.metrics);
    field("best_metric", ctx.best_metric);
    field("project", ctx.project);
    field("run_dir", ctx.run_dir);
    field("replaying", ctx.replaying);
    file << "}\n";
  }
};

}  // namespace tests

BULKHEAD_PLUGIN(tests::ContextProbe)
