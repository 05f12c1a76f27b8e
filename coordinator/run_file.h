// A run file, read and checked: YAML or JSON plus overrides from the command
// line in, a complete RunConfig or one sentence out.
//
// Looks at files (that the data set, the plugins and the interpreter are
// there) but opens none besides the run file; starts nothing.  What only a
// rank or a host can know (a column of a csv, a class in a .py) it leaves to
// them; place_of() names the line for their errors.  Any thread.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "plugin_spec.h"
#include "protocol/result.h"
#include "protocol/run_config.h"
#include "resolved_yaml.h"
#include "yaml_tree.h"

namespace bulkhead {

// What a run file's defaults depend on besides the file.
struct RunFileContext {
  PluginSearch plugins;
  std::filesystem::path python;             // interpreter for plugins that name none
  std::filesystem::path current_directory;  // paths typed on the command line start here
  bool has_cuda = false;                    // a GPU, and a worker built for it
};

struct RunFile {
  RunConfig config;
  std::string resolved_yaml;  // every key that counts, paths absolute; read back it gives this config
  std::map<std::string, std::string> places;  // dotted key → "run.yaml:12" or "command line: key=value"
  std::string source;                         // the run file as it was named
  YamlNode tree;                              // as read, with the overrides
  std::vector<ConfiguredChange> configured;   // by plugins, in list order

  // Where `key` ("data.target", "plugins.0.use", "plugins.early.use") was given,
  // or the section around it, or the file.
  std::string place_of(const std::string& key) const;
};

// Errors are `PLACE: …`, for exit status 2.
Result<RunFile> read_run_file(const std::filesystem::path& path, const std::vector<std::string>& overrides,
                              const RunFileContext& context);

// `run` with what the configure() of that plugin returned laid over it: dotted
// keys or nested mappings, checked like what they replace and together with the
// rest.  Errors are `PLACE: plugin "NAME": configure: …`.
Result<RunFile> configure_run_file(const RunFile& run, std::size_t plugin, const Value& changes,
                                   const RunFileContext& context);

}  // namespace bulkhead
