// YAML (and so JSON) as a tree that remembers where each piece was written.
// This file owns yaml-cpp: none of its types or exceptions leave it.
//
// Refuses duplicate keys, several documents, unknown tags, keys that are not
// plain text, and trees too deep or too large (aliases count as written out).
// Values only; any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "protocol/result.h"
#include "protocol/run_config.h"

namespace bulkhead {

struct YamlNode {
  enum class Kind { kNull, kScalar, kList, kMap };

  Kind kind = Kind::kNull;
  std::string key;                 // in a map: the key it stands under
  std::string text;                // scalar: without quotes
  bool quoted = false;             // scalar: was quoted, so text whatever it looks like
  std::string place;               // "run.yaml:12" or "command line: key=value"
  bool from_command_line = false;  // then paths are relative to the current directory
  std::vector<YamlNode> children;  // of a list or a map, in order

  bool is_map() const { return kind == Kind::kMap; }
  bool is_scalar() const { return kind == Kind::kScalar; }
  const YamlNode* find(std::string_view name) const;
  YamlNode* find(std::string_view name);
};

// The tree of one YAML text; `source` names it in places and errors
// ("run.yaml:3: …").  An empty text is a null node.
Result<YamlNode> parse_yaml(const std::string& text, const std::string& source);

// The same for a value typed on the command line; every node and every error
// has the place `place`.
Result<YamlNode> parse_typed_value(const std::string& text, const std::string& place);

// By YAML 1.2's core schema: null, true, 12, 1e-3, .inf; all else is text.
Value to_value(const YamlNode& node);

// How a person would name what stands there: `"six"`, a list, a mapping, nothing.
std::string describe(const YamlNode& node);

// One line of YAML that parse_yaml reads back to an equal value, also with a
// YAML 1.1 parser: {patience: 3, lr: 1.0e-08}.
std::string to_yaml(const Value& value);
std::string to_yaml(const std::string& text);
std::string to_yaml(double number);

}  // namespace bulkhead
