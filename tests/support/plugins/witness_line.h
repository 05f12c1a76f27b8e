// One line of RUN/witness/NAME-RANK.jsonl: a call and what ctx says in it, with
// the fields of witness.py beside this file.  For test plugins.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "bulkhead/plugin.h"

namespace tests {

inline std::string json(std::int64_t value) { return std::to_string(value); }
inline std::string json(bool value) { return value ? "true" : "false"; }
inline std::string json(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.17g", value);
  return text;
}
inline std::string json(std::string_view value) {
  std::string text = "\"";
  for (const char c : value) {
    char code[8];
    std::snprintf(code, sizeof code, "\\u%04x", static_cast<unsigned>(c));
    const bool escaped = c == '"' || c == '\\' || (c >= 0 && c < ' ');
    text += escaped ? std::string(code) : std::string(1, c);
  }
  return text + '"';
}
inline std::string json(const std::string& value) { return json(std::string_view(value)); }
inline std::string json(const std::optional<double>& value) { return value ? json(*value) : "null"; }

template <class Value>
std::string json(const std::map<std::string, Value>& values) {
  std::string text;
  for (const auto& [name, value] : values)
    text += (text.empty() ? "" : ", ") + json(name) + ": " + json(value);
  return "{" + text + "}";
}

// Appends {"hook": HOOK, FIELDS}; `fields` are those of a JSON object, without braces.
inline void write_line(const bulkhead::Facts& facts, std::string_view hook, const std::string& fields) {
  const std::filesystem::path folder = std::filesystem::path(facts.run_dir) / "witness";
  std::filesystem::create_directories(folder);
  std::ofstream file(folder / (facts.plugin + "-" + std::to_string(facts.rank) + ".jsonl"), std::ios::app);
  file << "{\"hook\": " + json(hook) + fields + "}\n";
}

inline std::string fields_of(const bulkhead::Context& ctx) {
  std::string text;
  const auto field = [&](std::string_view name, const auto& value) {
    text += ", " + json(name) + ": " + json(value);
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
  return text;
}

}  // namespace tests
