#include "run_overrides.h"

#include <charconv>
#include <optional>
#include <vector>

#include "plugin_spec.h"
#include "suggestion.h"

namespace bulkhead {
namespace {

std::vector<std::string> split_key(const std::string& key) {
  std::vector<std::string> parts;
  std::size_t from = 0;
  for (std::size_t dot = key.find('.'); dot != std::string::npos; dot = key.find('.', from)) {
    parts.push_back(key.substr(from, dot - from));
    from = dot + 1;
  }
  parts.push_back(key.substr(from));
  return parts;
}

std::optional<std::size_t> parse_index(const std::string& text) {
  std::size_t index = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), index);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return index;
}

std::vector<std::string> plugin_names(const YamlNode& plugins, const std::filesystem::path& base) {
  std::vector<std::string> names;
  for (const YamlNode& plugin : plugins.children) {
    const YamlNode* name = plugin.find("name");
    const YamlNode* use = plugin.find("use");
    if (name == nullptr && use != nullptr)
      names.push_back(default_plugin_name(use->text, base));
    else
      names.push_back(name == nullptr ? "" : name->text);
  }
  return names;
}

// Walks down one dotted key, making mappings where there is nothing yet.
class Descent {
 public:
  Descent(std::string place, const std::filesystem::path& base) : place_(std::move(place)), base_(base) {}

  Result<YamlNode*> child(YamlNode& node, const std::string& part, const std::string& path) const {
    if (node.kind == YamlNode::Kind::kList || path == "plugins") return item(node, part, path);
    if (node.kind == YamlNode::Kind::kScalar) return refuse(path + " holds no keys");
    node.kind = YamlNode::Kind::kMap;
    if (YamlNode* found = node.find(part)) return found;
    YamlNode made;
    made.key = part;
    made.place = place_;
    made.from_command_line = true;
    node.children.push_back(std::move(made));
    return &node.children.back();
  }

  Error refuse(const std::string& sentence) const {
    return Error{ErrorCode::kMismatch, place_ + ": " + sentence};
  }

 private:
  Result<YamlNode*> item(YamlNode& list, const std::string& part, const std::string& path) const {
    const auto names = path == "plugins" ? plugin_names(list, base_) : std::vector<std::string>();
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (names[i] == part) return &list.children[i];
    }
    const auto index = parse_index(part);
    if (index && *index < list.children.size()) return &list.children[*index];
    const std::string count = std::to_string(list.children.size());
    if (path != "plugins") return refuse(path + " has " + count + " items and none is number " + part);
    if (index || names.empty())
      return refuse("the run file has " + count + " plugins and none is number " + part);
    return refuse("no plugin is called " + part + did_you_mean(part, names, "the run file has"));
  }

  std::string place_;
  const std::filesystem::path& base_;
};

// The node of a dotted key, made where there is none yet.
Result<YamlNode*> descend(YamlNode& root, const std::string& key, const Descent& descent) {
  YamlNode* node = &root;
  std::string path;
  for (const std::string& part : split_key(key)) {
    if (part.empty()) return descent.refuse("the key has an empty part");
    auto child = descent.child(*node, part, path);
    if (!child) return child.error();
    node = *child;
    path += (path.empty() ? "" : ".") + part;
  }
  return node;
}

void replace(YamlNode& node, YamlNode value) {
  value.key = node.key;
  node = std::move(value);
}

}  // namespace

std::string place_of_override(const std::string& override_text) { return "command line: " + override_text; }

Status apply_override(YamlNode& root, const std::string& override_text, const std::filesystem::path& base) {
  Descent descent(place_of_override(override_text), base);
  const std::size_t equals = override_text.find('=');
  if (equals == 0 || equals == std::string::npos) return descent.refuse("an override is written key=value");
  auto value = parse_typed_value(override_text.substr(equals + 1), place_of_override(override_text));
  if (!value) return value.error();
  auto node = descend(root, override_text.substr(0, equals), descent);
  if (!node) return node.error();
  replace(**node, std::move(*value));
  return ok_status();
}

Status apply_change(YamlNode& root, const std::string& key, const Value& value, const std::string& place) {
  const std::filesystem::path nowhere;
  auto written = parse_typed_value(to_yaml(value), place);
  if (!written) return written.error();
  auto node = descend(root, key, Descent(place, nowhere));
  if (!node) return node.error();
  written->from_command_line = false;  // its paths are relative to the run file
  replace(**node, std::move(*written));
  return ok_status();
}

}  // namespace bulkhead
