#include "run_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "given_keys.h"
#include "resolved_yaml.h"
#include "run_changes.h"
#include "run_checks.h"
#include "run_overrides.h"
#include "run_schema.h"
#include "run_value.h"
#include "suggestion.h"
#include "yaml_tree.h"

namespace bulkhead {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kLargestFile = std::size_t{4} << 20;

Error refuse(const std::string& place, const std::string& sentence) {
  return Error{ErrorCode::kMismatch, place + ": " + sentence};
}

Result<std::string> read_text(const fs::path& path) {
  const Error is_folder{ErrorCode::kUnavailable, path.string() + " is a folder, not a run file"};
  std::error_code error;
  if (!fs::exists(path, error)) {
    const std::string sentence = missing_path(fs::absolute(path).lexically_normal());
    return Error{ErrorCode::kUnavailable, "the run file " + sentence};
  }
  if (fs::is_directory(path, error)) return is_folder;
  std::ifstream in(path, std::ios::binary);
  if (!in) return Error{ErrorCode::kUnavailable, path.string() + " may not be read: " + std::strerror(errno)};
  std::string text(kLargestFile + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(in.gcount()));
  if (text.size() > kLargestFile) return refuse(path.string(), "too large for a run file (over 4 MiB)");
  return text;
}

// `key` up to its last dot: "" for a top-level one.
std::string section_of(const std::string& key) {
  const std::size_t dot = key.rfind('.');
  return dot == std::string::npos ? "" : key.substr(0, dot);
}

// "plugins.early.with" as "plugins.0.with"; any other key as it is.
std::string by_index(const std::string& key, const std::vector<PluginConfig>& plugins) {
  constexpr std::string_view kPrefix = "plugins.";
  if (!key.starts_with(kPrefix)) return key;
  const std::size_t end = std::min(key.find('.', kPrefix.size()), key.size());
  for (std::size_t i = 0; i < plugins.size(); ++i) {
    if (plugins[i].name != key.substr(kPrefix.size(), end - kPrefix.size())) continue;
    return std::string(kPrefix) + std::to_string(i) + key.substr(end);
  }
  return key;
}

class RunFileReader {
 public:
  RunFileReader(const fs::path& path, const RunFileContext& context)
      : context_(context), base_(fs::absolute(path).parent_path()) {
    run_.source = path.string();
    run_.config.name = as_name(path.stem().string());
    run_.config.data.validation_fraction = -1;  // stays where it is not given and has no default: mnist
  }

  Result<RunFile> read(const std::string& text, const std::vector<std::string>& overrides) {
    auto tree = parse_yaml(text, run_.source);
    if (!tree) return tree.error();
    if (tree->kind == YamlNode::Kind::kNull) return refuse(run_.source, "the run file is empty");
    if (!tree->is_map())
      return refuse(tree->place, "a run file is a mapping of keys, not " + describe(*tree));
    name_plain_plugins(*tree);
    for (const std::string& item : overrides) {
      if (auto applied = apply_override(*tree, item, base_); !applied) return applied.error();
      name_plain_plugins(*tree);
    }
    return read(std::move(*tree), {});
  }

  // A tree in which everything has been laid over already.
  Result<RunFile> read(YamlNode tree, std::vector<ConfiguredChange> configured) {
    if (auto read = read_keys(tree); !read) return read.error();
    if (auto checked = check_run(run_); !checked) return checked.error();
    if (auto read = read_plugins(tree); !read) return read.error();
    run_.configured = std::move(configured);
    run_.resolved_yaml = resolved_yaml(run_.config, run_.configured);
    run_.tree = std::move(tree);
    return std::move(run_);
  }

 private:
  // `plugins: [pkg.mod.Class]` is short for `plugins: [{use: pkg.mod.Class}]`.
  static void name_plain_plugins(YamlNode& root) {
    YamlNode* plugins = root.find("plugins");
    if (plugins == nullptr || plugins->kind != YamlNode::Kind::kList) return;
    for (YamlNode& item : plugins->children) {
      if (!item.is_scalar()) continue;
      YamlNode use = item;
      use.key = "use";
      item.kind = YamlNode::Kind::kMap;
      item.children = {std::move(use)};
    }
  }

  Status read_keys(const YamlNode& root) {
    GivenKeys given;
    if (auto collected = collect_keys(root, run_keys(), "", given); !collected) return collected;
    for (const YamlNode& node : root.children) run_.places[node.key] = node.place;
    for (const auto& [key, node] : given) run_.places[key] = node->place;
    for (const KeySpec& spec : run_keys()) {
      const ConfigRef ref{.run = &run_.config, .plugin = nullptr};
      if (auto filled = fill(spec, run_keys(), "", given, ref); !filled) return filled;
      if (spec.key != "train.device") continue;
      if (auto resolved = resolve_device(run_, context_.has_cuda); !resolved) return resolved;
    }
    return ok_status();
  }

  // One row of the schema: what was given, else the default.
  Status fill(const KeySpec& spec, const std::vector<KeySpec>& keys, const std::string& prefix,
              const GivenKeys& given, ConfigRef ref) const {
    const auto found = given.find(spec.key);
    const std::string key = prefix + spec.key;
    if (!belongs(spec, keys, ref)) {
      if (found == given.end()) return ok_status();
      return refuse(found->second->place, key + " belongs to " + spec.belongs.key + " " +
                                              one_of(spec.belongs.values) + ", not to " +
                                              text_of(spec.belongs.key, keys, ref));
    }
    if (found != given.end()) {
      const YamlNode& node = *found->second;
      return set_value(spec, key, node, base_for(node), spec.slot(ref));
    }
    if (spec.required) {
      return refuse(run_.place_of(key), key + " must be given (" + spec.meaning + ")");
    }
    const auto text = default_of(spec, keys, ref);
    if (!text || spec.kind == KeyKind::kMapping) return ok_status();
    YamlNode node;
    node.kind = YamlNode::Kind::kScalar;
    node.text = *text;
    const auto set = set_value(spec, key, node, base_, spec.slot(ref));
    CHECK(set.ok(), "the schema's own default of " + key);
    return set;
  }

  fs::path base_for(const YamlNode& node) const {
    if (!node.from_command_line) return base_;
    return context_.current_directory.empty() ? fs::current_path() : context_.current_directory;
  }

  Status read_plugins(const YamlNode& root) {
    const YamlNode* plugins = root.find("plugins");
    if (plugins == nullptr || plugins->kind == YamlNode::Kind::kNull) return ok_status();
    if (plugins->kind != YamlNode::Kind::kList) {
      return refuse(plugins->place, "plugins must be a list, not " + describe(*plugins));
    }
    for (const YamlNode& item : plugins->children) {
      auto read = moves_batches_to_gpu(item) ? check_gpu_for(item) : read_plugin(item);
      if (!read) return read;
    }
    return ok_status();
  }

  // `use: cuda`, a plugin of other trainers that moves batches to the GPU, is what every rank with one does.
  static bool moves_batches_to_gpu(const YamlNode& item) {
    const YamlNode* use = item.is_map() ? item.find("use") : nullptr;
    return use != nullptr && use->is_scalar() && use->text == "cuda";
  }
  Status check_gpu_for(const YamlNode& item) const {
    if (run_.config.train.device == "cuda") return ok_status();
    return refuse(item.place, "use: cuda moves batches to a GPU, but train.device is " +
                                  run_.config.train.device + "; leave it out, or train on a GPU");
  }

  Status read_plugin(const YamlNode& item) {
    const std::string owner = "plugins." + std::to_string(run_.config.plugins.size());
    const std::string prefix = owner + ".";
    run_.places[owner] = item.place;
    if (!item.is_map()) {
      return refuse(item.place, owner + " must be a mapping with the key use, not " + describe(item));
    }
    GivenKeys given;
    if (auto collected = collect_keys(item, plugin_keys(), prefix, given); !collected) return collected;
    for (const auto& [key, node] : given) run_.places[prefix + key] = node->place;
    if (auto refused = refuse_unbuilt(prefix, given); !refused) return refused;
    PluginConfig plugin;
    const ConfigRef ref{.run = nullptr, .plugin = &plugin};
    for (const KeySpec& spec : plugin_keys()) {
      if (auto filled = fill(spec, plugin_keys(), prefix, given, ref); !filled) return filled;
    }
    plugin.deadline_given = given.contains("deadline");
    if (auto resolved = resolve(prefix, base_for(*given.at("use")), plugin); !resolved) return resolved;
    run_.config.plugins.push_back(std::move(plugin));
    return ok_status();
  }

  // Words of the design that this version knows but cannot do.
  static Status refuse_unbuilt(const std::string& prefix, const GivenKeys& given) {
    const auto then = given.find("on_failure.then");
    if (then == given.end()) return ok_status();
    const YamlNode& node = *then->second;
    if (node.text.starts_with("fallback") || node.find("fallback") != nullptr) {
      return refuse(node.place,
                    prefix +
                        "on_failure.then: fallback needs a plugin with a compute hook, which is not "
                        "supported yet; use disable or abort");
    }
    return ok_status();
  }

  Status resolve(const std::string& prefix, const fs::path& base, PluginConfig& plugin) {
    const auto spec = resolve_plugin(plugin.use, base, context_.plugins);
    if (!spec) return refuse(run_.place_of(prefix + "use"), prefix + "use: " + spec.error().message);
    plugin.language = spec->language;
    plugin.file = spec->file;
    plugin.module = spec->module;
    plugin.class_name = spec->class_name;
    if (plugin.name.empty()) plugin.name = spec->name;
    for (std::size_t i = 0; i < run_.config.plugins.size(); ++i) {
      if (run_.config.plugins[i].name != plugin.name) continue;
      const std::string other = "plugins." + std::to_string(i) + " (" + run_.config.plugins[i].use + ")";
      const std::string name = "\"" + plugin.name + "\"";
      const std::string sentence =
          run_.places.contains(prefix + "name")
              ? "name " + name + " is the name of " + other + " too; give one of them another name"
              : "use: without a name of its own it is called " + name + ", as is " + other +
                    "; give one of them another name with the key name";
      return refuse(run_.place_of(prefix + "name"), prefix + sentence);
    }
    if (plugin.language == "python" && plugin.python.empty()) plugin.python = context_.python.string();
    if (auto checked = check_device(run_, prefix + "device", plugin); !checked) return checked;
    if (auto checked = check_affinity(run_, prefix + "affinity", plugin); !checked) return checked;
    return check_interpreter(run_, prefix + "python", plugin);
  }

  const RunFileContext& context_;
  fs::path base_;
  RunFile run_;
};

}  // namespace

std::string RunFile::place_of(const std::string& key) const {
  for (std::string part = by_index(key, config.plugins); !part.empty(); part = section_of(part)) {
    if (const auto found = places.find(part); found != places.end()) return found->second;
  }
  return source;
}

Result<RunFile> read_run_file(const fs::path& path, const std::vector<std::string>& overrides,
                              const RunFileContext& context) {
  auto text = read_text(path);
  if (!text) return text.error();
  return RunFileReader(path, context).read(*text, overrides);
}

Result<RunFile> configure_run_file(const RunFile& run, std::size_t plugin, const Value& changes,
                                   const RunFileContext& context) {
  const PluginConfig& by = run.config.plugins.at(plugin);
  const std::string place =
      run.place_of("plugins." + std::to_string(plugin) + ".use") + ": plugin \"" + by.name + "\": configure";
  auto flat = flatten_changes(changes);
  if (!flat) return refuse(place, flat.error().message);
  YamlNode tree = run.tree;
  std::vector<ConfiguredChange> configured = run.configured;
  for (auto& [key, value] : *flat) {
    if (auto applied = apply_change(tree, key, value, place); !applied) return applied.error();
    configured.push_back({by.name, key, value});
  }
  auto changed = RunFileReader(run.source, context).read(std::move(tree), std::move(configured));
  if (changed || changed.error().message.starts_with(place)) return changed;
  // A rule about several keys names the line of one that was in the file.
  return refuse(place, "with its changes, " + changed.error().message);
}

}  // namespace bulkhead
