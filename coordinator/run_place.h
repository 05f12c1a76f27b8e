// Where a run lives, found or made before its first process starts.
//
// Makes and locks the run directory; looks at checkpoints by name only.
// Any thread.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "command_line.h"
#include "protocol/result.h"
#include "run_directory.h"

namespace bulkhead {

struct RunPlace {
  RunDirectory directory;
  bool fresh = true;                            // made for this run
  std::optional<std::filesystem::path> resume;  // checkpoint that the ranks start from
};

// What --run-dir, --resume and the run's name ask for: a new directory, or the
// one of the run that goes on.  An Error is a sentence for exit status 2.
Result<RunPlace> find_place(const RunOptions& options, const std::string& name);

// Refuses a given --master-port that somebody listens at; 0 is always free.
Status check_port_free(const std::string& address, int port);

}  // namespace bulkhead
