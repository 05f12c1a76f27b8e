// key=value from the command line, laid over the tree of a run file before
// anything is checked, so that an override is checked like what it replaces.
//
// Knows nothing of the schema: an override of an unknown key is refused later,
// with the override as its place.  Pure but for default plugin names, which
// may look into a .py file.  Any thread.
#pragma once

#include <filesystem>
#include <string>

#include "protocol/result.h"
#include "yaml_tree.h"

namespace bulkhead {

// The place of what `override_text` sets: "command line: train.max_steps=5".
std::string place_of_override(const std::string& override_text);

// Sets `key` to what a plugin's configure() returned; `place` says who it was.
Status apply_change(YamlNode& root, const std::string& key, const Value& value, const std::string& place);

// Sets what `override_text` says in `root`.  Keys are dotted; a list item is
// addressed by its index, a plugin also by its name.
// Malformed or unaddressable overrides are refused with one sentence.
Status apply_override(YamlNode& root, const std::string& override_text, const std::filesystem::path& base);

}  // namespace bulkhead
