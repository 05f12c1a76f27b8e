#include "run_changes.h"

#include "yaml_tree.h"

namespace bulkhead {
namespace {

using Changes = std::vector<std::pair<std::string, Value>>;

void flatten(const std::string& prefix, const Value& map, Changes& flat) {
  for (const auto& [name, value] : map.items()) {
    const std::string key = prefix + name;
    if (value.is_object()) {
      flatten(key + ".", value, flat);
    } else {
      flat.emplace_back(key, value);
    }
  }
}

// Why a plugin may not change that key; empty where it may.
std::string fixed_because(const std::string& key) {
  const std::string section = key.substr(0, key.find('.'));
  if (section == "plugins") return "the plugins have been started";
  if (section == "name") return "the run directory has been named";
  if (section == "configured") return "it is the record of what plugins changed";
  if (key == "train.device") return "the plugins have been told it";
  return "";
}

}  // namespace

Result<Changes> flatten_changes(const Value& changes) {
  if (!changes.is_object()) {
    return Error{ErrorCode::kMismatch,
                 "it must return a mapping of keys to values, not " + std::string(changes.type_name())};
  }
  Changes flat;
  flatten("", changes, flat);
  for (const auto& [key, value] : flat) {
    const std::string reason = fixed_because(key);
    if (reason.empty()) continue;
    return Error{ErrorCode::kMismatch, "a plugin cannot change \"" + key + "\": " + reason};
  }
  return flat;
}

Value run_map(const RunFile& run) {
  const auto tree = parse_yaml(run.resolved_yaml, "run.yaml");
  CHECK(tree.ok(), "run.yaml is what this program wrote");
  return to_value(*tree);
}

}  // namespace bulkhead
