#include "program_paths.h"

#include <fstream>
#include <string>

namespace bulkhead {
namespace {

namespace fs = std::filesystem;

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

// The source tree that a build tree was configured from.
fs::path source_of(const fs::path& build) {
  const std::string key = "CMAKE_HOME_DIRECTORY:INTERNAL=";
  std::ifstream cache(build / "CMakeCache.txt");
  for (std::string line; std::getline(cache, line);) {
    if (line.starts_with(key)) return line.substr(key.size());
  }
  return build.parent_path().parent_path();  // build/<preset>
}

ProgramPaths in_build_tree(const fs::path& build) {
  const fs::path source = source_of(build);
  return {.shim = build / "coordinator" / "bulkhead-shim",
          .worker = build / "worker" / "bulkhead-worker",
          .native_host = build / "plugin-host" / "bulkhead-plugin-host",
          .python_package = source / "plugin-host" / "python",
          .source_plugins = source / "plugins",
          .build_plugins = build / "plugins",
          .python = source / ".deps" / "python" / "bin" / "python"};
}

// As CMakeLists.txt installs.
ProgramPaths installed(const fs::path& prefix) {
  const fs::path programs = prefix / "libexec" / "bulkhead";
  const fs::path data = prefix / "share" / "bulkhead";
  return {.shim = programs / "bulkhead-shim",
          .worker = programs / "bulkhead-worker",
          .native_host = programs / "bulkhead-plugin-host",
          .python_package = data / "python",
          .source_plugins = data / "plugins",
          .build_plugins = prefix / "lib" / "bulkhead" / "plugins",
          .python = {}};
}

}  // namespace

ProgramPaths program_paths(const fs::path& self) {
  const fs::path folder = self.parent_path();
  ProgramPaths paths = is_there(folder / "bulkhead-shim") ? in_build_tree(folder.parent_path())
                                                          : installed(folder.parent_path());
  if (!is_there(paths.python)) paths.python = "/usr/bin/python3";
  return paths;
}

Result<ProgramPaths> find_programs(const fs::path& self) {
  ProgramPaths paths = program_paths(self);
  for (const fs::path& program : {paths.shim, paths.worker}) {
    if (is_there(program)) continue;
    return Error{ErrorCode::kUnavailable, program.string() + " is not there; run scripts/setup --build"};
  }
  return paths;
}

}  // namespace bulkhead
