#include "given_keys.h"

#include "suggestion.h"

namespace bulkhead {
namespace {

Error refuse(const std::string& place, const std::string& sentence) {
  return Error{ErrorCode::kMismatch, place + ": " + sentence};
}

// What may stand in `section`: its keys and the sections in it.
std::vector<std::string> names_in(const std::string& section, const std::vector<KeySpec>& keys) {
  std::vector<std::string> names;
  const std::string prefix = section.empty() ? "" : section + ".";
  for (const KeySpec& spec : keys) {
    if (!spec.key.starts_with(prefix)) continue;
    const std::string name =
        spec.key.substr(prefix.size(), spec.key.find('.', prefix.size()) - prefix.size());
    if (names.empty() || names.back() != name) names.push_back(name);
  }
  if (section.empty() && &keys == &run_keys()) names.push_back("plugins");
  return names;
}

// A key under the wrong section is named where it belongs, else the nearest.
Error unknown_key(const YamlNode& node, const std::string& shown, const std::string& section,
                  const std::vector<KeySpec>& keys) {
  const auto siblings = names_in(section, keys);
  for (const KeySpec& spec : keys) {
    if (spec.key.ends_with("." + node.key))
      return refuse(node.place, shown + " is not a key; did you mean \"" + spec.key + "\"?");
  }
  return refuse(node.place, shown + " is not a key" + did_you_mean(node.key, siblings, "the keys here are"));
}

// The given keys of one owner (the run, or one plugin), by dotted key.
class KeyCollector {
 public:
  KeyCollector(const std::vector<KeySpec>& keys, std::string shown_prefix)
      : keys_(keys), shown_prefix_(std::move(shown_prefix)) {}

  Status collect(const YamlNode& map, const std::string& section, GivenKeys& given) const {
    if (map.kind != YamlNode::Kind::kNull && !map.is_map()) {
      return refuse(map.place, shown_prefix_ + section + " must be a mapping with the keys " +
                                   join(names_in(section, keys_)) + ", not " + describe(map));
    }
    for (const YamlNode& node : map.children) {
      const std::string key = section.empty() ? node.key : section + "." + node.key;
      const bool of_run = section.empty() && &keys_ == &run_keys();
      if (of_run && (key == "plugins" || key == "configured")) continue;
      if (is_leaf(key)) {
        given[key] = &node;
      } else if (is_section(key)) {
        if (auto inner = collect(node, key, given); !inner) return inner;
      } else {
        return unknown_key(node, shown_prefix_ + key, section, keys_);
      }
    }
    return ok_status();
  }

 private:
  bool is_leaf(const std::string& key) const {
    for (const KeySpec& spec : keys_) {
      if (spec.key == key) return true;
    }
    return false;
  }
  bool is_section(const std::string& key) const {
    for (const KeySpec& spec : keys_) {
      if (spec.key.starts_with(key + ".")) return true;
    }
    return false;
  }

  const std::vector<KeySpec>& keys_;
  std::string shown_prefix_;
};

}  // namespace

Status collect_keys(const YamlNode& map, const std::vector<KeySpec>& keys, const std::string& prefix,
                    GivenKeys& given) {
  return KeyCollector(keys, prefix).collect(map, "", given);
}

}  // namespace bulkhead
