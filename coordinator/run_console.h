// What a person reads while a run goes on and at its end: metrics and events
// turned into the progress display's state and lines.
//
// Decides nothing.  Used on the loop's thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "error_kinds.h"
#include "progress_display.h"
#include "protocol/run_config.h"
#include "run_event.h"
#include "run_records.h"

namespace bulkhead {

class RunConsole {
 public:
  // Writes to `fd`, which stays the caller's.
  RunConsole(int fd, const RunConfig& config, std::int64_t first_step);

  // A plugin changed the run before it began.
  void configure(const RunConfig& config);
  void metrics(const Value& line, TimePoint now);
  void event(const Event& event);
  // Redraws a terminal; call it now and then.
  void refresh(const std::string& phase, std::vector<PluginProgress> plugins, TimePoint now);
  // The last lines: how it ended, in numbers.
  void finish(const Summary& summary, const std::filesystem::path& run_dir, const std::string& sample);

 private:
  int fd_;
  ProgressDisplay display_;
  ProgressState state_;
  TimePoint first_metrics_;
  std::map<std::string, ErrorKinds> errors_;  // by plugin and rank
};

// One line: "noise/0: SIGSEGV in on_step_end at step 40".  Empty for events
// that are in the display anyway or that people need not see.
std::string describe(const Event& event);

// The short report at a run's end.
std::vector<std::string> closing_lines(const Summary& summary, const std::filesystem::path& run_dir);

}  // namespace bulkhead
