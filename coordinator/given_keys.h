// Which keys of the schema a mapping gives, and the refusal of those that are
// in no schema.
//
// Looks at keys only; values are run_value's.  Pure; any thread.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "protocol/result.h"
#include "run_schema.h"
#include "yaml_tree.h"

namespace bulkhead {

// By dotted key; the nodes stay the tree's.
using GivenKeys = std::map<std::string, const YamlNode*>;

// Adds the keys of `map` to `given`.  `prefix` is what a person writes before
// them ("plugins.0." or nothing), for the sentences.  The run's own `plugins`
// is left to its reader; `configured`, which run.yaml has, is a record only.
Status collect_keys(const YamlNode& map, const std::vector<KeySpec>& keys, const std::string& prefix,
                    GivenKeys& given);

}  // namespace bulkhead
