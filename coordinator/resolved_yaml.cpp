#include "resolved_yaml.h"

#include <vector>

#include "run_schema.h"
#include "run_value.h"
#include "yaml_tree.h"

namespace bulkhead {
namespace {

// "section:" lines where a dotted key enters a section.
class Lines {
 public:
  explicit Lines(std::string indent) : indent_(std::move(indent)) {}

  void add(const std::string& key, const std::string& value) {
    const std::size_t dot = key.find('.');
    const std::string section = dot == std::string::npos ? "" : key.substr(0, dot);
    if (section != section_ && !section.empty()) line(section + ":");
    section_ = section;
    line(section.empty() ? key + ": " + value : "  " + key.substr(dot + 1) + ": " + value);
  }

  std::string text() const { return text_; }

 private:
  void line(const std::string& content) { text_ += indent_ + content + "\n"; }

  std::string indent_;
  std::string section_;
  std::string text_;
};

// Names and modules stay as written; what was a relative path must not depend
// on where run.yaml lies.
std::string portable_use(const PluginConfig& plugin) {
  const bool by_name = plugin.use.find_first_of("/:") == std::string::npos && !plugin.use.ends_with(".py") &&
                       !plugin.use.ends_with(".so");
  if (plugin.file.empty() || by_name) return plugin.use;
  return plugin.class_name.empty() ? plugin.file : plugin.file + ":" + plugin.class_name;
}

std::string plugin_yaml(PluginConfig plugin) {
  plugin.use = portable_use(plugin);
  Lines lines("    ");
  for (const KeySpec& spec : plugin_keys()) {
    // Written, it would bound the waited-for hooks too.
    if (spec.key == "deadline" && !plugin.deadline_given) continue;
    if (const auto value = written(spec, spec.slot({.run = nullptr, .plugin = &plugin})))
      lines.add(spec.key, *value);
  }
  std::string text = lines.text();
  return text.replace(0, 4, "  - ");
}

}  // namespace

std::string resolved_yaml(const RunConfig& config, const std::vector<ConfiguredChange>& configured) {
  RunConfig copy = config;
  const ConfigRef ref{.run = &copy, .plugin = nullptr};
  Lines lines("");
  for (const KeySpec& spec : run_keys()) {
    if (!belongs(spec, run_keys(), ref) || folder_says(spec.key, config)) continue;
    if (const auto value = written(spec, spec.slot(ref))) lines.add(spec.key, *value);
  }
  if (config.plugins.empty()) return lines.text() + "plugins: []\n";
  std::string text = lines.text() + "plugins:\n";
  for (const PluginConfig& plugin : config.plugins) text += plugin_yaml(plugin);
  if (!configured.empty()) text += "configured:\n";
  for (const ConfiguredChange& change : configured) {
    const Value line{{"plugin", change.plugin}, {"key", change.key}, {"value", change.value}};
    text += "  - " + to_yaml(line) + "\n";
  }
  return text;
}

}  // namespace bulkhead
