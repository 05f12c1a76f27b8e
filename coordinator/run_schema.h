// Every key of a run file in one table: meaning, unit, default, allowed values
// and the RunConfig member it fills.  Reading, checking, writing run.yaml and
// the table in README.md all go by it, so a new key is one new row.
//
// Constant data and pure functions; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "protocol/run_config.h"

namespace bulkhead {

enum class KeyKind {
  kText,
  kName,         // letters, digits, _ and -: it becomes part of file names
  kPath,         // made absolute
  kInterpreter,  // a path, or a bare name looked up in PATH
  kInteger,
  kNumber,
  kBoolean,
  kChoice,
  kDuration,  // in seconds
  kSize,      // in bytes
  kMapping,   // any mapping, kept as it is
};

// A default that holds where another key has a certain value; `key` empty =
// always.  The first that holds counts.
struct KeyDefault {
  std::string key;
  std::string value;
  std::string text;  // as a person would write it; empty: none
};

struct KeyRange {
  std::optional<double> at_least;
  std::optional<double> above;
  std::optional<double> at_most;
  std::optional<double> below;
};

// The key belongs only where `key` has one of `values`; `key` empty = always.
struct KeyCondition {
  std::string key;
  std::vector<std::string> values;
};

// Where a value goes: one of the two is set, as the table is.
struct ConfigRef {
  RunConfig* run = nullptr;
  PluginConfig* plugin = nullptr;
};
// A choice with a bool slot is off | something.
using Slot = std::variant<std::string*, std::int64_t*, double*, bool*, Value*>;

struct KeySpec {
  std::string key;  // dotted, within the run file or within one plugin
  KeyKind kind = KeyKind::kText;
  Slot (*slot)(ConfigRef) = nullptr;
  std::string meaning{};
  std::string unit{};
  std::vector<KeyDefault> defaults{};  // none: may be left out, its member's own value stays
  std::vector<std::string> choices{};  // kChoice
  KeyRange range{};                    // kInteger, kNumber, kDuration, kSize
  KeyCondition belongs{};
  bool required = false;
};

// In an order in which every key comes after those its default depends on.
const std::vector<KeySpec>& run_keys();
const std::vector<KeySpec>& plugin_keys();

// The current text of a text or choice key in `config`; empty for any other.
std::string text_of(const std::string& key, const std::vector<KeySpec>& keys, ConfigRef config);

bool belongs(const KeySpec& spec, const std::vector<KeySpec>& keys, ConfigRef config);

// The default that holds for `config`; none where the key may be left out.
std::optional<std::string> default_of(const KeySpec& spec, const std::vector<KeySpec>& keys,
                                      ConfigRef config);

// Whether the config.json of model.from says what this key would: then it is not
// written, and its default means nothing.
bool folder_says(const std::string& key, const RunConfig& config);

// "at least 1", "greater than 0 and below 1"; empty when any value goes.
std::string describe(const KeyRange& range);

// The key table of coordinator/README.md.
std::string schema_markdown();

}  // namespace bulkhead
