// From `use:` in a run file to the thing to load: which language, which file or
// module, which class.
//
// Looks at file names only: nothing is imported, opened as a library or
// downloaded, so what is in the file is the plugin host's to check.  Any thread.
#pragma once

#include <filesystem>
#include <string>

#include "protocol/result.h"

namespace bulkhead {

// Where plugins are looked for, and whom the user trusts.
struct PluginSearch {
  std::filesystem::path source_plugins;  // shipped ones in Python: plugins/
  std::filesystem::path build_plugins;   // shipped native ones: build/<preset>/plugins/
  std::string trust_remote_code;         // BULKHEAD_TRUST_REMOTE_CODE as it is; only "1" trusts
};

struct PluginSpec {
  std::string language;    // python | cpp
  std::string file;        // .py file, package folder or .so, absolute; empty for a module
  std::string module;      // pkg.mod, for the module form
  std::string class_name;  // empty: the only Plugin subclass in the file; always for cpp
  std::string name;        // what the plugin is called when the run file does not say
};

// The forms of DESIGN §5: file.py:Class · file.py · folder/:Class · folder/ ·
// pkg.mod:Class · pkg.mod.Class · lib.so · NAME shipped.  Relative paths are
// taken from `base`; a file name without a folder that is not there is looked
// for among the shipped ones.  Errors are sentences without a place.
Result<PluginSpec> resolve_plugin(const std::string& use, const std::filesystem::path& base,
                                  const PluginSearch& search);

// PluginSpec::name from the text alone, also where nothing of that name exists.
std::string default_plugin_name(const std::string& use, const std::filesystem::path& base);

}  // namespace bulkhead
