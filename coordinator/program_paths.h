// Where the other programs and the shipped plugins lie: beside this program,
// in the build tree or as installed.
//
// Looks at file names and the build tree's CMakeCache.txt; starts nothing.
// Any thread.
#pragma once

#include <filesystem>

#include "protocol/result.h"

namespace bulkhead {

struct ProgramPaths {
  std::filesystem::path shim;
  std::filesystem::path worker;
  std::filesystem::path native_host;
  std::filesystem::path python_package;  // the folder that holds the package bulkhead
  std::filesystem::path source_plugins;  // shipped ones in Python
  std::filesystem::path build_plugins;   // shipped native ones
  std::filesystem::path python;          // interpreter for plugins that name none
};

// `self` is this program's own file (/proc/self/exe).  Nothing need be there.
ProgramPaths program_paths(const std::filesystem::path& self);

// The same, checked for a run.  A missing shim or worker
// is an Error naming scripts/setup --build; a missing host is found out when a
// plugin needs it.
Result<ProgramPaths> find_programs(const std::filesystem::path& self);

}  // namespace bulkhead
