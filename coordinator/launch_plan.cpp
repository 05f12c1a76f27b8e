#include "launch_plan.h"

#include <algorithm>
#include <map>

namespace bulkhead {
namespace {

// A rank is the last, a plugin the first that the kernel should pick when
// memory runs out.
constexpr int kWorkerOomScore = -500;
constexpr int kHostOomScore = 500;
// In a zygote's environment, for what its children's have more.
constexpr std::size_t kRoom = 256;

const PluginConfig& plugin_of(const LaunchPlan& plan, const ProcessKey& key) {
  return plan.plugins.at(static_cast<std::size_t>(key.plugin.value));
}

using Variables = std::map<std::string, std::string>;

Variables variables_of(const std::vector<std::string>& environment) {
  Variables variables;
  for (const std::string& entry : environment) {
    const std::size_t equals = entry.find('=');
    if (equals != std::string::npos) variables[entry.substr(0, equals)] = entry.substr(equals + 1);
  }
  return variables;
}

std::vector<std::string> entries_of(const Variables& variables) {
  std::vector<std::string> entries;
  for (const auto& [name, value] : variables) entries.push_back(name + "=" + value);
  return entries;
}

void add_common(Variables& variables, const LaunchPlan& plan, const ProcessKey& key) {
  variables["BULKHEAD_ENDPOINT"] = plan.endpoint;
  variables["BULKHEAD_SECRET"] = plan.secret;
  variables["BULKHEAD_GENERATION"] = std::to_string(key.generation.value);
  variables["BULKHEAD_RANK"] = std::to_string(key.rank);
}

// torchrun's names; one node, so local and global ranks are the same.
void add_worker(Variables& variables, const LaunchPlan& plan, const ProcessKey& key) {
  const std::string rank = std::to_string(key.rank);
  const std::string ranks = std::to_string(plan.ranks);
  variables["RANK"] = variables["LOCAL_RANK"] = rank;
  variables["WORLD_SIZE"] = variables["LOCAL_WORLD_SIZE"] = ranks;
  variables["NODE_RANK"] = variables["GROUP_RANK"] = "0";
  variables["MASTER_ADDR"] = plan.master_addr;
  variables["MASTER_PORT"] = std::to_string(plan.master_port);
  variables.emplace("OMP_NUM_THREADS", std::to_string(threads_per_rank(plan)));  // unless the user set it
}

void add_python(Variables& variables, const LaunchPlan& plan, const PluginConfig& plugin) {
  variables["PYTHONUNBUFFERED"] = "1";
  // A plugin that computes on all cores would take them from the ranks.
  variables["OMP_NUM_THREADS"] = "1";
  std::string& path = variables["PYTHONPATH"];
  path = plan.paths.python_package.string() + (path.empty() ? "" : ":" + path);
  // Last: a file there must not hide a module that the user's own path has.
  if (!plugin.module.empty() && !plan.run_folder.empty()) path += ":" + plan.run_folder.string();
}

}  // namespace

std::int64_t threads_per_rank(const LaunchPlan& plan) {
  const Variables given = variables_of(plan.environment);
  const auto found = given.find("OMP_NUM_THREADS");
  const std::int64_t said = found == given.end() ? 0 : std::atoll(found->second.c_str());
  return said > 0 ? said : std::max<std::int64_t>(1, plan.cores / plan.ranks);
}

bool has_cores_to_spare(const LaunchPlan& plan) {
  std::int64_t wanted = plan.ranks * threads_per_rank(plan);
  for (const PluginConfig& plugin : plan.plugins) wanted += plugin.scope == "rank" ? plan.ranks : 1;
  return wanted <= plan.cores;
}

std::string process_name(const LaunchPlan& plan, const ProcessKey& key) {
  const std::string rank = std::to_string(key.rank);
  return key.role == Role::kWorker ? "worker-" + rank : "host-" + plugin_of(plan, key).name + "-" + rank;
}

std::filesystem::path log_path(const LaunchPlan& plan, const ProcessKey& key) {
  return plan.logs / (process_name(plan, key) + ".log");
}

ChildOptions child_options(const LaunchPlan& plan, const ProcessKey& key) {
  Variables variables = variables_of(plan.environment);
  add_common(variables, plan, key);
  ChildOptions options;
  options.shim = plan.paths.shim;
  options.log = log_path(plan, key);
  if (key.role == Role::kWorker) {
    add_worker(variables, plan, key);
    options.argv = {plan.paths.worker.string()};
    options.oom_score_adj = kWorkerOomScore;
  } else {
    const PluginConfig& plugin = plugin_of(plan, key);
    variables["BULKHEAD_PLUGIN"] = std::to_string(key.plugin.value);
    add_python(variables, plan, plugin);
    options.argv = {plan.paths.native_host.string()};
    if (plugin.language == "python") options.argv = {plugin.python, "-m", "bulkhead.host"};
    options.oom_score_adj = kHostOomScore;
    options.limits = plugin.limits;
  }
  options.env = entries_of(variables);
  return options;
}

ChildOptions zygote_options(const LaunchPlan& plan, PluginId id) {
  const PluginConfig& plugin = plan.plugins.at(static_cast<std::size_t>(id.value));
  Variables variables = variables_of(plan.environment);
  add_python(variables, plan, plugin);
  variables["BULKHEAD_ZYGOTE_FILE"] = plugin.file;
  variables["BULKHEAD_ROOM"] = std::string(kRoom, '.');
  ChildOptions options;
  options.shim = plan.paths.shim;
  options.log = plan.logs / ("zygote-" + plugin.name + ".log");
  options.argv = {plugin.python, "-m", "bulkhead.zygote"};
  options.oom_score_adj = kHostOomScore;
  options.env = entries_of(variables);
  return options;
}

}  // namespace bulkhead
