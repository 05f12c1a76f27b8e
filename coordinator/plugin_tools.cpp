#include "plugin_tools.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <regex>

#include "protocol/hooks.h"
#include "run_value.h"

namespace bulkhead {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPythonPath = "PYTHONPATH=";

bool is_file(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

std::string strip(const std::string& line, const char* what = " \t\r/*\"'") {
  const std::size_t from = line.find_first_not_of(what);
  if (from == std::string::npos) return "";
  return line.substr(from, line.find_last_not_of(" \t\r\"'") - from + 1);
}

// The comment or docstring at the top, up to the end of its first sentence.
std::string first_sentence(std::istream& in) {
  std::string sentence;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("#!")) continue;
    const std::string text = strip(line);
    if (text.empty() && sentence.empty()) continue;
    if (text.empty() || (!line.starts_with("//") && text.starts_with("import "))) break;
    sentence += (sentence.empty() ? "" : " ") + text;
    if (text.ends_with('.') || text.ends_with(':')) break;
  }
  if (sentence.size() > 1 && (sentence.ends_with('.') || sentence.ends_with(':'))) sentence.pop_back();
  return sentence;
}

// `def NAME(self` or `NAME(…) override`, where NAME is a hook.
std::vector<std::string> hooks_in(const fs::path& file) {
  static const std::regex python(R"(^\s+def (\w+)\(self.*)");
  static const std::regex native(R"(.*\b(\w+)\([^()]*\)\s*(const\s*)?override.*)");
  std::vector<std::string> hooks;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    std::smatch match;
    if (line.size() > 300) continue;  // std::regex recurses for each character
    if (!std::regex_match(line, match, file.extension() == ".cpp" ? native : python)) continue;
    const std::string name = match[1];
    if (find_hook(name) != nullptr && std::find(hooks.begin(), hooks.end(), name) == hooks.end())
      hooks.push_back(name);
  }
  return hooks;
}

ShippedPlugin plugin_of(const std::string& name, const std::string& language, const fs::path& source) {
  std::ifstream in(source);
  return {name, language, first_sentence(in), hooks_in(source)};
}

std::vector<std::string> with_package(std::vector<std::string> environment, const std::string& package) {
  for (std::string& entry : environment) {
    if (!entry.starts_with(kPythonPath)) continue;
    const std::string rest = entry.substr(kPythonPath.size());
    entry = std::string(kPythonPath) + package + (rest.empty() ? "" : ":" + rest);
    return environment;
  }
  environment.push_back(std::string(kPythonPath) + package);
  return environment;
}

}  // namespace

Result<ToolProgram> plugin_tool(const ProgramPaths& paths, const std::string& command,
                                const std::vector<std::string>& arguments,
                                const std::vector<std::string>& environment) {
  const fs::path module = paths.python_package / "bulkhead" / (command + ".py");
  const fs::path package = paths.python_package / "bulkhead" / command / "__main__.py";
  if (!is_file(module) && !is_file(package)) {
    return Error{ErrorCode::kUnavailable,
                 "bulkhead plugin " + command + " needs " + module.string() + ", which is not there"};
  }
  if (!is_file(paths.python)) {
    return Error{ErrorCode::kUnavailable, "bulkhead plugin " + command + " needs a Python and " +
                                              paths.python.string() + " is none: run scripts/setup"};
  }
  ToolProgram tool;
  tool.argv = {paths.python.string(), "-m", "bulkhead." + command};
  tool.argv.insert(tool.argv.end(), arguments.begin(), arguments.end());
  if (command == "check" || command == "replay") {
    tool.argv.emplace_back("--native-host");
    tool.argv.push_back(paths.native_host.string());
  }
  tool.environment = with_package(environment, paths.python_package.string());
  return tool;
}

std::vector<ShippedPlugin> shipped_plugins(const ProgramPaths& paths) {
  std::vector<ShippedPlugin> plugins;
  std::error_code error;
  for (fs::directory_iterator it(paths.source_plugins, error), end; !error && it != end;
       it.increment(error)) {
    const fs::path& path = it->path();
    const std::string name = path.stem().string();
    if (!is_name(name) || name.starts_with('_')) continue;
    const fs::path source = path.extension() == ".py" ? path : path / "__init__.py";
    if (is_file(source)) plugins.push_back(plugin_of(name, "Python", source));
  }
  for (fs::directory_iterator it(paths.build_plugins, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().stem().string();
    if (it->path().extension() != ".so" || !is_name(name)) continue;
    // `use: NAME` is the Python one where there are both.
    const bool is_second = std::any_of(plugins.begin(), plugins.end(),
                                       [&](const ShippedPlugin& plugin) { return plugin.name == name; });
    plugins.push_back(
        plugin_of(is_second ? name + ".so" : name, "C++", paths.source_plugins / (name + ".cpp")));
  }
  std::sort(plugins.begin(), plugins.end(),
            [](const ShippedPlugin& a, const ShippedPlugin& b) { return a.name < b.name; });
  return plugins;
}

std::string describe(const std::vector<ShippedPlugin>& plugins) {
  std::size_t width = 0;
  for (const ShippedPlugin& plugin : plugins) width = std::max(width, plugin.name.size());
  std::string text;
  for (const ShippedPlugin& plugin : plugins) {
    const std::string indent(width + 2, ' ');
    text += plugin.name + indent.substr(plugin.name.size()) + plugin.language +
            (plugin.language == "C++" ? "     " : "  ") + plugin.summary + "\n";
    if (plugin.hooks.empty()) continue;
    text += indent + "        ";
    for (const std::string& hook : plugin.hooks) text += hook + (&hook == &plugin.hooks.back() ? "\n" : ", ");
  }
  return text;
}

}  // namespace bulkhead
