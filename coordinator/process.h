// What the coordinator calls its processes, and how it says that one ended.
//
// Values only; any thread.  Starting and ending processes is child_process.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>

#include "protocol/ids.h"

namespace bulkhead {

enum class Role { kWorker, kHost };

// One incarnation of one process of the run.
struct ProcessKey {
  Role role = Role::kWorker;
  PluginId plugin;        // hosts only
  std::int64_t rank = 0;  // of a host: the rank it serves
  Generation generation;

  friend auto operator<=>(const ProcessKey&, const ProcessKey&) = default;
};

// How a process ended: one of the two is set.
struct ProcessEnd {
  std::optional<int> exit_code;
  std::optional<int> signal;

  // "exit 3", "SIGSEGV".
  std::string describe() const;
};

// "SIGSEGV"; "signal 70" for one without a name.
std::string signal_name(int signal);

}  // namespace bulkhead
