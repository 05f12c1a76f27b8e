// Plugins that change the run before it is built: who is asked when, with what,
// whose answer counts, and what a failure means.
#include <gtest/gtest.h>

#include "support/cluster.h"

namespace bulkhead {
namespace {

using namespace std::chrono_literals;

FakeHostScript configurer(Value changes) {
  FakeHostScript script;
  script.traits.hooks = {"configure"};
  script.configured.changes = std::move(changes);
  return script;
}

TEST(Configure, AsksEachPluginInListOrderWithTheChangesOfThoseBefore) {
  Cluster cluster({.ranks = 2, .plugins = {plugin_named("a"), plugin_named("quiet"), plugin_named("b")}});
  cluster.run_map = {{"optimizer.lr", 1.0}, {"train.seed", 1}};
  cluster.host_script[0] = configurer({{"optimizer.lr", 0.5}});
  cluster.host_script[2] = configurer({{"train.seed", 7}});
  cluster.start();
  for (std::int64_t rank = 0; rank < 2; ++rank) {
    EXPECT_EQ(cluster.host(0, rank).last<Configure>().config["optimizer.lr"], 1.0);
    EXPECT_EQ(cluster.host(2, rank).last<Configure>().config["optimizer.lr"], 0.5);
    EXPECT_FALSE(cluster.host(1, rank).got<Configure>());
    const RunConfig config = cluster.worker(rank).last<StartWorker>().config;
    EXPECT_EQ(config.optimizer.lr, 0.5);
    EXPECT_EQ(config.train.seed, 7);
  }
  const auto recorded = cluster.events_named("configure");
  ASSERT_EQ(recorded.size(), 2U);
  EXPECT_EQ(recorded[0].plugin, "a");
  EXPECT_EQ(recorded[0].reason, R"({"optimizer.lr":0.5})");
}

TEST(Configure, HoldsTheRanksBackUntilEveryProcessHasAnswered) {
  Cluster cluster({.ranks = 2, .plugins = {plugin_named("a")}});
  cluster.host_script[0] = configurer(nullptr);
  cluster.host_script[0].configures = false;
  cluster.start();
  cluster.host(0, 0).send(Configured{});
  cluster.settle();
  EXPECT_FALSE(cluster.worker(0).got<StartWorker>());
  EXPECT_FALSE(cluster.host(0, 0).got<Attach>());
  cluster.host(0, 1).send(Configured{});
  cluster.settle();
  EXPECT_TRUE(cluster.worker(0).got<StartWorker>());
  EXPECT_TRUE(cluster.host(0, 1).got<Attach>());
  EXPECT_TRUE(cluster.events_named("configure").empty()) << "nothing was changed";
}

TEST(Configure, TakesTheChangesOfTheLowestRank) {
  Cluster cluster({.ranks = 2, .plugins = {plugin_named("a")}});
  cluster.host_script[0] = configurer(nullptr);
  cluster.host_script[0].configures = false;
  cluster.start();
  for (const std::int64_t rank : {1, 0}) {
    Configured answer;
    answer.changes = {{"optimizer.lr", rank == 0 ? 0.25 : 0.75}};
    cluster.host(0, rank).send(answer);
    cluster.settle();
  }
  EXPECT_EQ(cluster.worker(1).last<StartWorker>().config.optimizer.lr, 0.25);
}

TEST(Configure, AsksALaterIncarnationAgainWithWhatTheFirstGotAndIgnoresItsChanges) {
  Cluster cluster({.ranks = 1, .plugins = {plugin_named("a"), plugin_named("b")}});
  cluster.run_map = {{"optimizer.lr", 1.0}};
  cluster.host_script[0] = configurer({{"optimizer.lr", 0.5}});
  cluster.host_script[1] = configurer({{"optimizer.lr", 0.1}});
  cluster.start();
  cluster.host_script[0].configured.changes = {{"optimizer.lr", 99.0}};
  cluster.crash_host(0, 0);
  cluster.advance(100ms);
  const FakeHost& again = cluster.host(0, 0);
  EXPECT_EQ(again.key().generation, Generation(2));
  EXPECT_EQ(again.last<Configure>().config["optimizer.lr"], 1.0);
  EXPECT_TRUE(again.got<Attach>());
  EXPECT_EQ(cluster.run_map["optimizer.lr"], 0.1);
}

TEST(Configure, KeepsWhatItWasWhenTheRanksStartAgain) {
  Cluster cluster({.ranks = 1, .max_restarts = 1, .plugins = {plugin_named("a")}});
  cluster.run_map = {{"optimizer.lr", 1.0}};
  cluster.host_script[0] = configurer({{"optimizer.lr", 0.5}});
  cluster.start();
  cluster.host_script[0].configured.changes = {{"optimizer.lr", 99.0}};
  cluster.crash_worker(0);  // without a checkpoint: the host is started afresh
  cluster.advance(1s);
  EXPECT_EQ(cluster.host(0, 0).key().generation, Generation(2));
  EXPECT_EQ(cluster.host(0, 0).last<Configure>().config["optimizer.lr"], 1.0);
  EXPECT_EQ(cluster.worker(0).last<StartWorker>().config.optimizer.lr, 0.5);
}

TEST(Configure, ThatRaisesRefusesTheRunWithTheMessageAndTheTraceback) {
  Cluster cluster({.ranks = 2, .plugins = {plugin_named("a")}});
  cluster.host_script[0] = configurer(nullptr);
  cluster.host_script[0].configured.failure = Failure{"ValueError", "no such lr", "Traceback: line 3\n"};
  cluster.start();
  cluster.advance(2s);
  EXPECT_TRUE(cluster.ended);
  EXPECT_EQ(cluster.coordinator().outcome().exit_code, 2);
  EXPECT_EQ(
      cluster.coordinator().outcome().reason,
      "run.yaml:plugins.0.use: plugin \"a\": configure raised ValueError: no such lr\nTraceback: line 3");
  EXPECT_EQ(cluster.live_processes(), 0U);
}

TEST(Configure, WithAWrongChangeRefusesTheRunWithTheRunFilesOwnSentence) {
  Cluster cluster({.ranks = 1, .plugins = {plugin_named("a")}});
  cluster.host_script[0] = configurer({{"optimizer.lrr", 1}});
  cluster.refused_change = "run.yaml:3: plugin \"a\": configure: optimizer.lrr is not a key";
  cluster.start();
  cluster.advance(2s);
  EXPECT_TRUE(cluster.ended);
  EXPECT_EQ(cluster.coordinator().outcome().status, "refused");
  EXPECT_EQ(cluster.coordinator().outcome().reason, cluster.refused_change);
}

TEST(Configure, IsAskedAgainOfAProcessThatDiedInIt) {
  Cluster cluster({.ranks = 1, .plugins = {plugin_named("a")}});
  cluster.host_script[0] = configurer({{"optimizer.lr", 0.5}});
  cluster.host_script[0].configures = false;
  cluster.start();
  cluster.host_script[0].configures = true;
  cluster.crash_host(0, 0);
  cluster.advance(100ms);
  EXPECT_EQ(cluster.worker(0).last<StartWorker>().config.optimizer.lr, 0.5);
  const auto crashes = cluster.events_named("crash");
  ASSERT_EQ(crashes.size(), 1U);
  EXPECT_EQ(crashes[0].hook, "configure");
}

TEST(Configure, ThatHangsIsKilledAfterFiveMinutes) {
  Cluster cluster({.ranks = 1, .plugins = {plugin_named("a")}});
  cluster.host_script[0] = configurer(nullptr);
  cluster.host_script[0].configures = false;
  cluster.start();
  cluster.advance(299s);
  EXPECT_TRUE(cluster.killed.empty());
  cluster.host_script[0].configures = true;
  cluster.advance(2s);
  EXPECT_EQ(cluster.killed.size(), 1U);
  EXPECT_EQ(cluster.events_named("hang").size(), 1U);
  EXPECT_TRUE(cluster.worker(0).got<StartWorker>());
}

TEST(Configure, ThatRaisesInALaterIncarnationIsADeathLikeAnyOther) {
  Cluster cluster({.ranks = 1, .plugins = {plugin_named("a")}});
  cluster.host_script[0] = configurer(nullptr);
  cluster.start();
  cluster.host_script[0].configured.failure = Failure{"ValueError", "again", ""};
  cluster.crash_host(0, 0);
  cluster.advance(60s);
  EXPECT_FALSE(cluster.ended);
  EXPECT_EQ(cluster.events_named("disable").size(), 1U);
}

}  // namespace
}  // namespace bulkhead
