// What `bulkhead plugin new | check | list` need: the Python program that does
// the first two, and the list of the plugins that ship.
//
// Looks at files and starts nothing: main() executes the program.  Any thread.
#pragma once

#include <string>
#include <vector>

#include "program_paths.h"
#include "protocol/result.h"

namespace bulkhead {

// A program to become: argv, and the whole environment as "KEY=value".
struct ToolProgram {
  std::vector<std::string> argv;
  std::vector<std::string> environment;
};

// `PYTHON -m bulkhead.COMMAND ARGUMENTS… [--native-host PATH]` with the package
// bulkhead on PYTHONPATH, as for hosts; `command` is new or check.  An Error is
// a sentence: the interpreter or the module is not there.
Result<ToolProgram> plugin_tool(const ProgramPaths& paths, const std::string& command,
                                const std::vector<std::string>& arguments,
                                const std::vector<std::string>& environment);

struct ShippedPlugin {
  std::string name;                // as in `use:`
  std::string language;            // Python | C++
  std::string summary;             // the first sentence of its file's comment; may be empty
  std::vector<std::string> hooks;  // those whose definition can be seen in the text of the file
};

// By name, Python first.
std::vector<ShippedPlugin> shipped_plugins(const ProgramPaths& paths);

// For a terminal.
std::string describe(const std::vector<ShippedPlugin>& plugins);

}  // namespace bulkhead
