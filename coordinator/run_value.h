// One value of a run file: from what a person wrote to the member that the
// schema names for it, and back.
//
// Checks type, choice and range; does not look at files or at other keys.
// Every refusal is `PLACE: KEY must be …, not "…"`.  Pure; any thread.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "protocol/result.h"
#include "run_schema.h"
#include "yaml_tree.h"

namespace bulkhead {

// Puts what `node` says into `slot`.  `key` is the whole dotted key, for the
// sentence; relative paths are taken from `base`.
Status set_value(const KeySpec& spec, const std::string& key, const YamlNode& node,
                 const std::filesystem::path& base, Slot slot);

// What set_value would read back; nothing where the key was left out.
std::optional<std::string> written(const KeySpec& spec, Slot slot);

// "30s", "500ms", "10 min", "1h" in seconds.
std::optional<double> parse_duration(std::string_view text);

// "2GiB", "512 MiB", "1GB", "4096B" in bytes.
std::optional<std::int64_t> parse_size(std::string_view text);

// May stand in a file name and in a dotted key: letters, digits, _ and -, a
// letter or _ first, at most 64 of them.
bool is_name(std::string_view text);

// `text` with everything else made a '-'.
std::string as_name(std::string_view text);

}  // namespace bulkhead
