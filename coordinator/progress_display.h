// What a person sees of a run: on a terminal a block redrawn in place, step by
// step and plugin by plugin; elsewhere plain lines.
//
// Decides nothing and keeps no numbers of its own.  Used on the loop thread;
// render() and the other pure functions anywhere.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "protocol/clock.h"

namespace bulkhead {

struct PluginProgress {
  std::string name;   // with its rank where there are several: "early/1"
  std::string state;  // starting, ready, restarting, disabled, …
  std::int64_t restarts = 0;
};

struct ProgressState {
  std::string run;
  std::string phase;            // starting, training, validating, saving; empty = training
  std::int64_t step = 0;        // steps completed
  std::int64_t first_step = 0;  // steps completed before this process: the resumed checkpoint's
  std::int64_t max_steps = 0;   // 0 = not known
  std::int64_t epoch = 0;       // from 0; people count from 1
  std::int64_t max_epochs = 0;  // 0 = not known
  std::optional<double> loss;
  std::optional<double> tokens_per_second;
  double seconds = 0;  // since first_step
  std::vector<PluginProgress> plugins;
};

// Time left at the pace so far; none before the first step or without an end.
std::optional<double> eta_seconds(const ProgressState& state);

// "1:05", "2:03:04".
std::string clock_time(double seconds);

// One line per part of the block, none wider than `width` columns; what does
// not fit is left out from the right.
std::vector<std::string> render(const ProgressState& state, std::size_t width);

// The run's own line, whole.
std::string plain_line(const ProgressState& state);

class ProgressDisplay {
 public:
  // Writes to `fd`, which stays the caller's.  A terminal is redrawn at most
  // ten times a second.
  explicit ProgressDisplay(int fd);
  // The same for a given kind and size of output.
  ProgressDisplay(int fd, bool is_terminal, std::size_t columns, std::size_t rows);

  // The state changed.  Plain output shows nothing.
  void update(const ProgressState& state, TimePoint now);
  // A step that is logged: in plain output one line.
  void log_step(const ProgressState& state, TimePoint now);
  // Something happened: a line of its own, above the block.
  void event(const std::string& text);
  // The last state stays on the screen; later output comes below it.
  void finish();

 private:
  void redraw();
  std::string erased() const;
  std::vector<std::string> block() const;
  void write(const std::string& text) const;

  int fd_;
  bool is_terminal_;
  std::size_t columns_ = 0;  // 0: asked of the terminal at each redraw
  std::size_t rows_ = 0;
  ProgressState state_;
  std::optional<TimePoint> drawn_at_;
  std::size_t lines_drawn_ = 0;
};

}  // namespace bulkhead
