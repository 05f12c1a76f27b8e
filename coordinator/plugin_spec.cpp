#include "plugin_spec.h"

#include <algorithm>
#include <fstream>
#include <optional>
#include <regex>
#include <vector>

#include "run_value.h"
#include "suggestion.h"

namespace bulkhead {
namespace {

namespace fs = std::filesystem;

// `use` split at the colon before a class name.
struct UseText {
  std::string target;
  std::string class_name;
  bool has_colon = false;
};

UseText split(const std::string& use) {
  const std::size_t colon = use.rfind(':');
  if (colon == std::string::npos) return {use, "", false};
  return {use.substr(0, colon), use.substr(colon + 1), true};
}

bool is_identifier(const std::string& text) { return is_name(text) && text.find('-') == std::string::npos; }

bool is_dotted(const std::string& text) {
  std::string part;
  for (std::size_t from = 0; from <= text.size(); from += part.size() + 1) {
    part = text.substr(from, text.find('.', from) - from);
    if (!is_identifier(part)) return false;
  }
  return true;
}

Error refuse(const std::string& sentence) { return Error{ErrorCode::kUnavailable, sentence}; }

bool is_package(const fs::path& folder) { return fs::is_regular_file(folder / "__init__.py"); }

// `path` itself, or for a bare file name the shipped one of that name.
std::optional<fs::path> find_file(const std::string& target, const fs::path& base, const fs::path& shipped) {
  const fs::path path = (base / target).lexically_normal();
  std::error_code error;
  if (fs::exists(path, error)) return path;
  const bool bare = target.find('/') == std::string::npos;
  if (bare && !shipped.empty() && fs::exists(shipped / target, error)) return shipped / target;
  return std::nullopt;
}

std::vector<std::string> shipped_names(const PluginSearch& search) {
  std::vector<std::string> names;
  for (const auto& [folder, ending] :
       {std::pair(search.source_plugins, ".py"), std::pair(search.build_plugins, ".so")}) {
    std::error_code error;
    for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
      const std::string stem = it->path().stem().string();
      const bool is_plugin = it->path().extension() == ending || is_package(it->path());
      if (is_plugin && is_name(stem) && !stem.starts_with('_')) names.push_back(stem);
    }
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

std::optional<PluginSpec> find_shipped(const std::string& name, const PluginSearch& search) {
  std::error_code error;
  const fs::path source = search.source_plugins / name;
  const fs::path file = search.source_plugins / (name + ".py");
  const fs::path library = search.build_plugins / (name + ".so");
  if (fs::is_regular_file(file, error)) return PluginSpec{"python", file.string(), "", "", name};
  if (is_package(source)) return PluginSpec{"python", source.string(), "", "", name};
  if (fs::is_regular_file(library, error)) return PluginSpec{"cpp", library.string(), "", "", name};
  return std::nullopt;
}

Error refuse_remote(const std::string& use, const PluginSearch& search) {
  if (search.trust_remote_code != "1") {
    return refuse(
        use + " is code from outside and is not trusted; set BULKHEAD_TRUST_REMOTE_CODE=1 if you trust it");
  }
  return refuse("downloading " + use + " is not supported yet; fetch the repository and name its folder");
}

Result<PluginSpec> resolve_library(const UseText& use, const fs::path& base, const PluginSearch& search) {
  if (use.has_colon) return refuse("a native plugin has no class name: write " + use.target);
  const auto file = find_file(use.target, base, search.build_plugins);
  if (!file) return refuse(missing_path((base / use.target).lexically_normal()));
  if (!fs::is_regular_file(*file)) return refuse(file->string() + " is not a file");
  return PluginSpec{"cpp", file->string(), "", "", ""};
}

Result<PluginSpec> resolve_python_file(const UseText& use, const fs::path& base, const PluginSearch& search) {
  const auto file = find_file(use.target, base, search.source_plugins);
  if (!file) return refuse(missing_path((base / use.target).lexically_normal()));
  if (!fs::is_regular_file(*file)) return refuse(file->string() + " is not a file");
  return PluginSpec{"python", file->string(), "", use.class_name, ""};
}

Result<PluginSpec> resolve_folder(const UseText& use, const fs::path& base) {
  fs::path folder = (base / use.target).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();
  std::error_code error;
  if (!fs::exists(folder, error)) return refuse(missing_path(folder));
  if (!fs::is_directory(folder, error)) {
    return refuse(folder.string() + " is neither a .py file, a .so file nor a package folder");
  }
  if (!is_package(folder))
    return refuse("the folder " + folder.string() + " has no __init__.py, so it is no package");
  return PluginSpec{"python", folder.string(), "", use.class_name, ""};
}

// Text without a slash and without .py or .so: a package folder beside the run
// file, a shipped plugin, or a module that the host imports.
Result<PluginSpec> resolve_bare(const UseText& use, const fs::path& base, const PluginSearch& search) {
  const bool dotted = use.target.find('.') != std::string::npos;
  if (use.has_colon && is_package(base / use.target)) return resolve_folder(use, base);
  if (!dotted && (!use.has_colon || !fs::exists(base / (use.target + ".py")))) {
    auto shipped = find_shipped(use.target, search);
    if (shipped && use.has_colon && shipped->language == "cpp") {
      return refuse("a native plugin has no class name: write " + use.target);
    }
    if (shipped) {
      shipped->class_name = use.class_name;
      return *shipped;
    }
  }
  if (use.has_colon && is_dotted(use.target)) return PluginSpec{"python", "", use.target, use.class_name, ""};
  if (dotted && is_dotted(use.target)) {
    const std::size_t dot = use.target.rfind('.');
    return PluginSpec{"python", "", use.target.substr(0, dot), use.target.substr(dot + 1), ""};
  }
  for (const char* ending : {".py", ".so"}) {
    const std::string file = use.target + ending;
    if (fs::exists(base / file))
      return refuse("no shipped plugin is called " + use.target + "; did you mean \"" + file + "\"?");
  }
  return refuse("no shipped plugin is called " + use.target +
                did_you_mean(use.target, shipped_names(search), "shipped ones"));
}

// The one class of a file that says it derives from Plugin; empty where there
// is not exactly one.  For a name only: what is loaded is the host's decision.
std::string only_plugin_class(const fs::path& file) {
  static const std::regex pattern(R"(class\s+([A-Za-z_]\w*)\s*\([^)]*Plugin\b.*)");
  std::ifstream in(file);
  std::string line, found;
  while (std::getline(in, line)) {
    std::smatch match;
    if (line.size() > 200 || !line.starts_with("class") || !std::regex_match(line, match, pattern)) continue;
    if (!found.empty()) return "";
    found = match[1];
  }
  return found;
}

}  // namespace

std::string default_plugin_name(const std::string& use, const fs::path& base) {
  const UseText text = split(use);
  if (!text.class_name.empty()) return text.class_name;
  fs::path target(text.target);
  if (!target.has_filename()) target = target.parent_path();
  const std::string ending = target.extension().string();
  if (ending == ".py") {
    const std::string name = only_plugin_class(base / target);
    return name.empty() ? as_name(target.stem().string()) : name;
  }
  const bool is_module = !ending.empty() && ending != ".so" && text.target.find('/') == std::string::npos;
  return as_name(is_module ? ending.substr(1) : target.stem().string());
}

Result<PluginSpec> resolve_plugin(const std::string& use, const fs::path& base, const PluginSearch& search) {
  if (use.starts_with("hf://") || use.starts_with("ms://")) return refuse_remote(use, search);
  if (use.find("://") != std::string::npos) {
    return refuse(use + " is no form of plugin: only hf:// and ms:// name a plugin elsewhere");
  }
  const UseText text = split(use);
  if (text.target.empty()) return refuse("\"" + use + "\" names no plugin");
  if (text.has_colon && !is_identifier(text.class_name)) {
    return refuse("after the colon of \"" + use + "\" a class name must follow");
  }
  Result<PluginSpec> spec = text.target.ends_with(".so")   ? resolve_library(text, base, search)
                            : text.target.ends_with(".py") ? resolve_python_file(text, base, search)
                            : text.target.find('/') != std::string::npos ? resolve_folder(text, base)
                                                                         : resolve_bare(text, base, search);
  if (spec && spec->name.empty()) spec->name = default_plugin_name(use, base);
  return spec;
}

}  // namespace bulkhead
