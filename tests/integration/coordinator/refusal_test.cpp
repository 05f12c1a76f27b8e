// Plugins that may not run as they are: one sentence with the place in the run
// file, exit status 2, nothing left running.
#include <gtest/gtest.h>

#include "support/cluster.h"

namespace bulkhead {
namespace {

using namespace std::chrono_literals;

LoadFailed failure_of(const std::string& stage, const std::string& key, const std::string& sentence) {
  LoadFailed failed;
  failed.stage = stage;
  failed.key = key;
  failed.failure = {"TypeError", sentence, ""};
  return failed;
}

void expect_refused(Cluster& cluster, const std::string& sentence) {
  cluster.advance(2s);
  EXPECT_TRUE(cluster.ended);
  EXPECT_EQ(cluster.coordinator().outcome().status, "refused");
  EXPECT_EQ(cluster.coordinator().outcome().exit_code, 2);
  EXPECT_EQ(cluster.coordinator().outcome().reason, sentence);
  EXPECT_EQ(cluster.live_processes(), 0U);
}

TEST(Refusal, NamesThePlaceOfTheArgumentThatAPluginDoesNotTake) {
  Cluster cluster({.ranks = 2, .plugins = {plugin_named("ok"), plugin_named("early")}});
  cluster.host_script[1].load_failed =
      failure_of("arguments", "with.patince", "has no argument patince; did you mean \"patience\"?");
  cluster.start();
  expect_refused(cluster,
                 "run.yaml:plugins.1.with.patince: plugin \"early\": has no argument patince; did you mean "
                 "\"patience\"?");
  EXPECT_FALSE(cluster.coordinator().summary().status.empty());
}

TEST(Refusal, NamesThePluginsEntryWhereNoKeyIsToBlame) {
  Cluster cluster({.ranks = 1, .plugins = {plugin_named("early")}});
  cluster.host_script[0].load_failed = failure_of("constructor", "", "ValueError: no");
  cluster.start();
  expect_refused(cluster, "run.yaml:plugins.0: plugin \"early\": ValueError: no");
}

TEST(Refusal, NamesBothPluginsOfAConflictAndTheClaim) {
  Cluster cluster({.ranks = 2, .plugins = {plugin_named("owner"), plugin_named("other")}});
  cluster.host_script[0].traits.claims = {"train_batch"};
  cluster.host_script[0].traits.hooks = {"transform_train_batch"};
  cluster.host_script[1].traits.hooks = {"transform_train_batch"};
  cluster.start();
  EXPECT_FALSE(cluster.live_processes() > 0 && cluster.worker(0).got<StartWorker>());
  expect_refused(
      cluster,
      "run.yaml:plugins.1.use: plugin \"other\": overrides transform_train_batch, but plugin \"owner\" "
      "claims \"train_batch\" for itself; take one of the two out of the run");
}

TEST(Refusal, OfAPluginThatDoesNotSteerButTransforms) {
  Cluster cluster({.ranks = 1, .plugins = {plugin_named("watcher")}});
  cluster.host_script[0].traits.steers = false;
  cluster.host_script[0].traits.hooks = {"on_step_end", "transform_train_batch"};
  cluster.start();
  expect_refused(
      cluster,
      "run.yaml:plugins.0.use: plugin \"watcher\": says steers = False but overrides "
      "transform_train_batch, whose result the run waits for; such a plugin may override on_… and state "
      "hooks only");
}

TEST(Refusal, NamesBothPluginsOfOneClaimAlsoWhereNeitherHasTheHook) {
  Cluster cluster({.ranks = 1, .plugins = {plugin_named("base"), plugin_named("dup")}});
  for (auto& script : cluster.host_script) script.traits.claims = {"should_stop"};
  cluster.start();
  expect_refused(cluster,
                 "run.yaml:plugins.1.use: plugin \"dup\": claims \"should_stop\", but plugin \"base\" claims "
                 "\"should_stop\" for itself; take one of the two out of the run");
}

TEST(Refusal, OfASecondPluginThatEncodesOrCollatesNamesBoth) {
  for (const char* hook : {"encode", "collate"}) {
    Cluster cluster(
        {.ranks = 2, .plugins = {plugin_named("first"), plugin_named("rows"), plugin_named("second")}});
    cluster.host_script[0].traits.hooks = {"preprocess", "keep", hook};
    cluster.host_script[1].traits.hooks = {"preprocess", "keep"};
    cluster.host_script[2].traits.hooks = {hook};
    cluster.start();
    expect_refused(cluster,
                   "run.yaml:plugins.2.use: plugin \"second\": overrides " + std::string(hook) +
                       ", but so does plugin \"first\", and only one can; take one of the two out of "
                       "the run");
  }
}

TEST(Refusal, OfTheDataSetStageIsForNodeScopeAndObserversOnly) {
  for (const char* hook : {"preprocess", "keep", "encode"}) {
    for (const char* scope : {"rank", "node", "job"}) {
      Cluster cluster({.ranks = 2, .plugins = {plugin_named("rows", scope)}});
      cluster.host_script[0].traits.hooks = {hook};
      cluster.start();
      if (scope != std::string_view("node")) {
        EXPECT_TRUE(cluster.worker(0).got<StartWorker>()) << hook << " " << scope;
        continue;
      }
      expect_refused(
          cluster, "run.yaml:plugins.0.scope: plugin \"rows\": overrides " + std::string(hook) +
                       " in scope node, where one process serves several ranks, but does not say stateless = "
                       "True; say so if its attributes do not change after setup, or use scope: rank");
    }
    Cluster cluster({.ranks = 1, .plugins = {plugin_named("watcher")}});
    cluster.host_script[0].traits.steers = false;
    cluster.host_script[0].traits.hooks = {hook};
    cluster.start();
    expect_refused(
        cluster,
        "run.yaml:plugins.0.use: plugin \"watcher\": says steers = False but overrides " + std::string(hook) +
            ", whose result the run waits for; such a plugin may override on_… and state hooks only");
  }
}

TEST(Refusal, IsNotForDifferentClaims) {
  Cluster cluster({.ranks = 1, .plugins = {plugin_named("a"), plugin_named("b"), plugin_named("c")}});
  cluster.host_script[0].traits.claims = {"train_batch"};
  cluster.host_script[0].traits.hooks = {"transform_train_batch"};
  cluster.host_script[1].traits.claims = {"validate_batch", "test_batch"};
  cluster.host_script[1].traits.hooks = {"transform_validate_batch", "transform_test_batch"};
  cluster.host_script[2].traits.hooks = {"should_stop", "transform_image"};
  cluster.start();
  EXPECT_TRUE(cluster.worker(0).got<StartWorker>());
}

TEST(Refusal, OfATransformInASharedProcessThatIsNotStateless) {
  for (const char* scope : {"node", "job"}) {
    for (const char* hook : {"transform_train_batch", "transform_caption"}) {
      Cluster cluster({.ranks = 2, .plugins = {plugin_named("noise", scope)}});
      cluster.host_script[0].traits.hooks = {hook};
      cluster.start();
      expect_refused(cluster,
                     "run.yaml:plugins.0.scope: plugin \"noise\": overrides " + std::string(hook) +
                         " in scope " + scope +
                         ", where one process serves several ranks, but does not say stateless = True; "
                         "say so if its attributes do not change after setup, or use scope: rank");
    }
  }
}

TEST(Refusal, OfAPluginWhoseSetupRaisesAtItsFirstStart) {
  Cluster cluster({.ranks = 2, .plugins = {plugin_named("early")}});
  for (auto& worker : cluster.worker_script) worker.hosts_ready = false;
  cluster.start();
  HostFault fault;
  fault.host_generation = Generation(1);
  fault.kind = "refused";
  fault.reason = "setup raised ValueError: no such file";
  cluster.worker(0).send(fault);
  expect_refused(cluster, "run.yaml:plugins.0: plugin \"early\": setup raised ValueError: no such file");
}

TEST(Refusal, OfTheRunFileByAWorkerNamesThePlaceOfTheKey) {
  Cluster cluster({.ranks = 2});
  cluster.start();
  WorkerDone refused;
  refused.status = "refused";
  refused.key = "data.target";
  refused.reason = "data.target: the file has no column prise; did you mean \"price\"?";
  cluster.worker(1).send(refused);
  expect_refused(cluster,
                 "run.yaml:data.target: data.target: the file has no column prise; did you mean \"price\"?");
}

TEST(Refusal, IsHeardAlsoWhenItArrivesAfterTheHostHasEnded) {
  Cluster cluster({.ranks = 1, .plugins = {plugin_named("early")}});
  cluster.host_script[0].loads = false;
  cluster.start();
  FakeHost& host = cluster.host(0, 0);
  host.send(failure_of("import", "use", "no module named early"));
  cluster.coordinator().process_ended(host.key(), {.exit_code = 2, .signal = {}});
  EXPECT_TRUE(cluster.events_named("crash").empty());
  cluster.settle();
  EXPECT_EQ(cluster.coordinator().outcome().reason,
            "run.yaml:plugins.0.use: plugin \"early\": no module named early");
  EXPECT_TRUE(cluster.events_named("crash").empty());
}

TEST(Refusal, IsACrashWhenTheHostGivesNone) {
  Cluster cluster({.ranks = 1, .plugins = {plugin_named("early")}});
  cluster.host_script[0].loads = false;
  cluster.start();
  cluster.host_script[0].loads = true;
  cluster.exit_host(0, 0, 2);
  cluster.advance(1s);
  ASSERT_EQ(cluster.events_named("crash").size(), 1U);
  EXPECT_EQ(cluster.events_named("crash")[0].reason, "exit 2");
  EXPECT_TRUE(cluster.worker(0).got<StartWorker>());
}

TEST(Refusal, IsNotWhatACrashInTheConstructorIs) {
  Cluster cluster({.ranks = 1, .plugins = {plugin_named("early")}});
  cluster.host_script[0].loads = false;
  cluster.start();
  cluster.host_script[0].loads = true;
  cluster.crash_host(0, 0);
  EXPECT_TRUE(cluster.worker(0).got<StartWorker>());
  const auto crashes = cluster.events_named("crash");
  ASSERT_EQ(crashes.size(), 1U);
  EXPECT_EQ(crashes[0].hook, "__init__");
  EXPECT_EQ(crashes[0].reason, "SIGSEGV");
}

}  // namespace
}  // namespace bulkhead
