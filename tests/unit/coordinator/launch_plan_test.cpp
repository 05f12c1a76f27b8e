#include "launch_plan.h"

#include <algorithm>

#include <gtest/gtest.h>

namespace bulkhead {
namespace {

LaunchPlan plan() {
  PluginConfig python;
  python.name = "early";
  python.language = "python";
  python.python = "/venv/bin/python";
  PluginConfig native;
  native.name = "noise";
  native.language = "cpp";
  native.limits.memory_bytes = 1000;
  LaunchPlan plan;
  plan.paths.shim = "/b/bulkhead-shim";
  plan.paths.worker = "/b/bulkhead-worker";
  plan.paths.native_host = "/b/bulkhead-plugin-host";
  plan.paths.python_package = "/src/python";
  plan.plugins = {python, native};
  plan.ranks = 2;
  plan.cores = 8;
  plan.logs = "/run/logs";
  plan.endpoint = "ipc:///d/control";
  plan.secret = "s";
  plan.environment = {"PATH=/bin", "RANK=9", "PYTHONPATH=/mine"};
  return plan;
}

bool has(const ChildOptions& options, const std::string& entry) {
  return std::find(options.env.begin(), options.env.end(), entry) != options.env.end();
}

TEST(LaunchPlan, GivesAWorkerTorchrunsEnvironment) {
  const auto options = child_options(plan(), {Role::kWorker, {}, 1, Generation(3)});
  EXPECT_EQ(options.argv, std::vector<std::string>{"/b/bulkhead-worker"});
  EXPECT_EQ(options.log, "/run/logs/worker-1.log");
  for (const char* entry : {"RANK=1", "LOCAL_RANK=1", "WORLD_SIZE=2", "LOCAL_WORLD_SIZE=2", "NODE_RANK=0",
                            "GROUP_RANK=0", "MASTER_ADDR=127.0.0.1", "MASTER_PORT=0", "BULKHEAD_GENERATION=3",
                            "BULKHEAD_ENDPOINT=ipc:///d/control", "BULKHEAD_SECRET=s", "BULKHEAD_RANK=1",
                            "OMP_NUM_THREADS=4", "PATH=/bin"}) {
    EXPECT_TRUE(has(options, entry)) << entry;
  }
  EXPECT_FALSE(has(options, "RANK=9"));
}

TEST(LaunchPlan, KeepsTheUsersThreadCountForWorkers) {
  LaunchPlan own = plan();
  own.environment.push_back("OMP_NUM_THREADS=3");
  EXPECT_TRUE(has(child_options(own, {Role::kWorker, {}, 0, Generation(1)}), "OMP_NUM_THREADS=3"));
  EXPECT_TRUE(has(child_options(own, {Role::kHost, PluginId(1), 0, Generation(1)}), "OMP_NUM_THREADS=1"));
}

TEST(LaunchPlan, CountsCoresThatNobodyComputesOn) {
  LaunchPlan shared = plan();
  shared.environment.push_back("OMP_NUM_THREADS=2");
  EXPECT_TRUE(has_cores_to_spare(shared)) << "4 threads and 4 processes on 8 cores";
  shared.cores = 7;
  EXPECT_FALSE(has_cores_to_spare(shared));
  shared.plugins[0].scope = "job";
  EXPECT_TRUE(has_cores_to_spare(shared)) << "one process for all ranks";
  shared.environment.pop_back();
  EXPECT_FALSE(has_cores_to_spare(shared)) << "3 threads a rank where nobody says how many";
}

TEST(LaunchPlan, StartsAPythonHostWithThePluginsInterpreter) {
  const auto options = child_options(plan(), {Role::kHost, PluginId(0), 1, Generation(2)});
  EXPECT_EQ(options.argv, (std::vector<std::string>{"/venv/bin/python", "-m", "bulkhead.host"}));
  EXPECT_EQ(options.log, "/run/logs/host-early-1.log");
  EXPECT_TRUE(has(options, "PYTHONPATH=/src/python:/mine"));
  EXPECT_TRUE(has(options, "PYTHONUNBUFFERED=1"));
  EXPECT_TRUE(has(options, "BULKHEAD_PLUGIN=0"));
  EXPECT_GT(options.oom_score_adj, 0);
}

TEST(LaunchPlan, FindsAPluginThatIsAModuleBesideTheRunFile) {
  LaunchPlan with_module = plan();
  with_module.run_folder = "/runs";
  EXPECT_TRUE(has(child_options(with_module, {Role::kHost, PluginId(0), 1, Generation(2)}),
                  "PYTHONPATH=/src/python:/mine"));
  with_module.plugins[0].module = "pkg.mod";
  EXPECT_TRUE(has(child_options(with_module, {Role::kHost, PluginId(0), 1, Generation(2)}),
                  "PYTHONPATH=/src/python:/mine:/runs"));
}

TEST(LaunchPlan, StartsANativeHostWithItsLimits) {
  const auto options = child_options(plan(), {Role::kHost, PluginId(1), 0, Generation(1)});
  EXPECT_EQ(options.argv, std::vector<std::string>{"/b/bulkhead-plugin-host"});
  EXPECT_EQ(options.limits.memory_bytes, 1000);
}

}  // namespace
}  // namespace bulkhead
