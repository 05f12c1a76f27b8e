#include "run_console.h"

#include <cstdio>
#include <unistd.h>
#include <utility>

namespace bulkhead {
namespace {

std::string number_text(double number, const char* format = "%.4g") {
  char text[48];
  std::snprintf(text, sizeof text, format, number);
  return text;
}

std::optional<double> number(const Value& line, const char* key) {
  const auto found = line.find(key);
  return found != line.end() && found->is_number() ? std::optional(found->get<double>()) : std::nullopt;
}

std::string subject_of(const Event& event) {
  const std::string rank = event.rank ? std::to_string(*event.rank) : "";
  if (event.plugin) return *event.plugin + (rank.empty() ? "" : "/" + rank);
  return rank.empty() ? "run" : "rank " + rank;
}

std::string counted(std::int64_t count, const char* one, const char* many) {
  return std::to_string(count) + " " + (count == 1 ? one : many);
}

// "loss 1.234, accuracy 0.98"
std::string scalars(const Value& values) {
  std::string text;
  for (const auto& [key, value] : values.items()) {
    if (value.is_number()) text += (text.empty() ? "" : ", ") + key + " " + number_text(value.get<double>());
  }
  return text;
}

std::string plugin_line(const PluginSummary& plugin) {
  std::string line = "  " + plugin.name + (plugin.rank ? "/" + std::to_string(*plugin.rank) : "") + "  " +
                     plugin.state + ", " + counted(plugin.calls, "call", "calls");
  if (plugin.calls > 0) line += " (p50 " + number_text(plugin.p50_us, "%.0f") + " µs)";
  if (!plugin.crashes.empty()) {
    line += ", " + counted(static_cast<std::int64_t>(plugin.crashes.size()), "death", "deaths") + ", " +
            counted(plugin.starts - 1, "restart", "restarts");
  }
  if (plugin.errors > 0) line += ", " + counted(plugin.errors, "error", "errors");
  return line;
}

}  // namespace

std::string describe(const Event& event) {
  std::string text = subject_of(event) + ": ";
  const std::string reason = event.reason.value_or("");
  if (event.event == "ready" || event.event == "save" || (event.event == "start" && event.rank)) return {};
  if (event.event == "crash") {
    text += reason;
  } else if (event.event == "restart" && event.seconds) {
    text += "restarted after " + number_text(*event.seconds, "%.2f") + " s";
  } else {
    text += event.event + (reason.empty() ? "" : ": " + reason);
  }
  if (event.hook) text += " in " + *event.hook;
  if (event.step) text += " at step " + std::to_string(*event.step);
  return text;
}

std::vector<std::string> closing_lines(const Summary& summary, const std::filesystem::path& run_dir) {
  std::string head = summary.status + " after " + counted(summary.steps, "step", "steps");
  if (summary.seconds > 0) head += " in " + clock_time(summary.seconds);
  if (summary.tokens_per_second > 0)
    head += ", " + number_text(summary.tokens_per_second, "%.0f") + " tokens/s";
  if (summary.final_loss) head += ", loss " + number_text(*summary.final_loss, "%.4f");
  std::vector<std::string> lines{head};
  if (!summary.reason.empty()) lines.push_back("  " + summary.reason);
  if (summary.validation.is_object()) lines.push_back("  validation: " + scalars(Value(summary.validation)));
  if (!summary.params_sha256.empty()) lines.push_back("  weights " + summary.params_sha256.substr(0, 16));
  if (summary.test.is_object()) lines.push_back("  test: " + scalars(Value(summary.test)));
  for (const PluginSummary& plugin : summary.plugins) {
    lines.push_back(plugin_line(plugin));
    for (const auto& [kind, count] : plugin.errors_by_kind) {
      lines.push_back("    " + std::to_string(count) + " × " + kind);
    }
  }
  lines.push_back("  " + run_dir.string());
  return lines;
}

RunConsole::RunConsole(int fd, const RunConfig& config, std::int64_t first_step) : fd_(fd), display_(fd) {
  state_.run = config.name;
  state_.first_step = state_.step = first_step;
  configure(config);
}

void RunConsole::configure(const RunConfig& config) {
  state_.max_steps = config.train.max_steps;
  state_.max_epochs = config.train.max_epochs;
}

void RunConsole::metrics(const Value& line, TimePoint now) {
  if (const auto step = number(line, "step")) state_.step = static_cast<std::int64_t>(*step);
  for (const char* part : {"validation", "test"}) {
    if (!line.contains(part)) continue;
    if (line[part].is_object()) {
      display_.event("step " + std::to_string(state_.step) + ": " + part + " " + scalars(line[part]));
    }
    return;
  }
  if (first_metrics_ == TimePoint{}) {
    // The pace is measured from the first line on: what came before was opening.
    first_metrics_ = now;
    state_.first_step = state_.step;
  }
  state_.seconds = std::chrono::duration<double>(now - first_metrics_).count();
  if (const auto epoch = number(line, "epoch")) state_.epoch = static_cast<std::int64_t>(*epoch);
  // The phase is told now and then; a line of metrics says that training goes on.
  if (state_.phase == "starting" || state_.phase == "restarting") state_.phase.clear();
  if (const auto loss = number(line, "loss")) state_.loss = loss;
  if (const auto rate = number(line, "tokens_per_second")) state_.tokens_per_second = rate;
  display_.log_step(state_, now);
}

void RunConsole::event(const Event& event) {
  // A hook that raises at every step is told of once; the end has the count.
  if (event.event == "error" && !errors_[subject_of(event)].add(event.reason.value_or(""))) return;
  if (const std::string text = describe(event); !text.empty()) display_.event(text);
}

void RunConsole::refresh(const std::string& phase, std::vector<PluginProgress> plugins, TimePoint now) {
  state_.phase = phase;
  state_.plugins = std::move(plugins);
  display_.update(state_, now);
}

void RunConsole::finish(const Summary& summary, const std::filesystem::path& run_dir,
                        const std::string& sample) {
  display_.finish();
  std::string text = sample.empty() ? "" : "sample:\n" + sample + "\n\n";
  for (const std::string& line : closing_lines(summary, run_dir)) text += line + "\n";
  [[maybe_unused]] const ssize_t written = ::write(fd_, text.data(), text.size());
}

}  // namespace bulkhead
