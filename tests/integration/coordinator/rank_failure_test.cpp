// What happens when a rank dies: all ranks start again from the newest
// checkpoint, the plugin hosts live on.
#include <gtest/gtest.h>

#include "support/cluster.h"

namespace bulkhead {
namespace {

using namespace std::chrono_literals;

Cluster restartable(std::int64_t max_restarts = 1) {
  return Cluster({.ranks = 2, .max_restarts = max_restarts, .plugins = {plugin_named("noise")}});
}

TEST(RankFailure, RestartsAllRanksFromTheNewestCheckpoint) {
  Cluster cluster = restartable();
  cluster.start();
  cluster.checkpoint = "/run/checkpoints/step-00000100";
  cluster.crash_worker(1);
  for (const std::int64_t rank : {0, 1}) {
    EXPECT_EQ(cluster.worker(rank).key().generation, Generation(2));
    EXPECT_EQ(cluster.worker(rank).last<StartWorker>().resume, "/run/checkpoints/step-00000100");
    EXPECT_TRUE(cluster.worker(rank).last<StartWorker>().restarted);
  }
  EXPECT_EQ(cluster.cut_backs, std::vector<std::string>{"/run/checkpoints/step-00000100"});
  EXPECT_EQ(cluster.events_named("crash").size(), 1U);
  EXPECT_EQ(cluster.events_named("restart").size(), 2U);
}

TEST(RankFailure, LetsHostsLiveOnWhereThereIsACheckpoint) {
  Cluster cluster = restartable();
  cluster.start();
  const auto before = cluster.host(0, 0).last<Attach>();
  cluster.checkpoint = "/run/checkpoints/step-00000100";
  cluster.crash_worker(1);
  EXPECT_EQ(cluster.host(0, 0).key().generation, Generation(1));
  const auto attach = cluster.worker(0).last<AttachHost>();
  EXPECT_TRUE(attach.lived_on);
  EXPECT_EQ(cluster.host(0, 0).last<Attach>().endpoint, attach.endpoint);
  EXPECT_NE(attach.endpoint, before.endpoint);
  EXPECT_EQ(cluster.host(0, 0).last<Attach>().worker_generation, Generation(2));
}

TEST(RankFailure, StartsHostsAfreshAtNoChargeWhereThereIsNoCheckpoint) {
  Cluster cluster = restartable();
  cluster.start();
  cluster.crash_worker(0);
  EXPECT_EQ(cluster.host(0, 0).key().generation, Generation(2));
  EXPECT_EQ(cluster.host(0, 1).key().generation, Generation(2));
  EXPECT_FALSE(cluster.worker(0).last<AttachHost>().lived_on);
  EXPECT_EQ(cluster.worker(0).last<StartWorker>().resume, "");
  EXPECT_EQ(cluster.coordinator().summary().plugins[0].crashes.size(), 0U);
}

TEST(RankFailure, AHostThatDiedBetweenTwoGenerationsIsNotSaidToHaveLivedOn) {
  Cluster cluster = restartable();
  cluster.start();
  cluster.checkpoint = "/run/checkpoints/step-00000100";
  cluster.host_script[0].loads = false;
  cluster.crash_host(0, 0);
  cluster.crash_worker(0);
  EXPECT_FALSE(cluster.worker(0).got<StartWorker>()) << "waits for the host";
  cluster.host(0, 0).send(Loaded{});
  cluster.settle();
  EXPECT_FALSE(cluster.worker(0).last<AttachHost>().lived_on);
  EXPECT_TRUE(cluster.worker(1).last<AttachHost>().lived_on);
}

TEST(RankFailure, FailsTheRunWhenNoRestartIsLeft) {
  Cluster cluster = restartable(1);
  cluster.checkpoint = "/run/checkpoints/step-00000100";
  cluster.log_tail = "CUDA error: out of luck";
  cluster.start();
  cluster.crash_worker(1);
  cluster.crash_worker(1, SIGSEGV);
  cluster.advance(2s);
  EXPECT_TRUE(cluster.ended);
  EXPECT_EQ(cluster.coordinator().outcome().exit_code, 1);
  EXPECT_EQ(cluster.coordinator().outcome().reason,
            "rank 1 ended: SIGSEGV; its log ends: CUDA error: out of luck (no restart of the ranks left: "
            "--max-restarts)");
  EXPECT_EQ(cluster.live_processes(), 0U);
  EXPECT_EQ(cluster.coordinator().summary().ranks[0].restarts, 1);
}

TEST(RankFailure, BlamesTheRankThatDiedNotTheOneWhoseCollectiveBroke) {
  Cluster cluster = restartable(0);
  cluster.start();
  cluster.worker(0).done("failed", {}, "Connection closed by peer");
  cluster.settle();
  EXPECT_FALSE(cluster.ended);
  cluster.crash_worker(1, SIGKILL);
  cluster.advance(2s);
  EXPECT_TRUE(cluster.coordinator().outcome().reason.starts_with("rank 1 ended: SIGKILL"));
}

TEST(RankFailure, DoesNotStartAgainWhatAllRanksAgreedHasFailed) {
  Cluster cluster = restartable(3);
  cluster.start();
  for (const std::int64_t rank : {0, 1})
    cluster.worker(rank).done("failed", {}, "plugin \"noise\": ValueError: no");
  cluster.advance(2s);
  EXPECT_TRUE(cluster.ended);
  EXPECT_EQ(cluster.coordinator().outcome().status, "failed");
  EXPECT_EQ(cluster.coordinator().outcome().reason, "plugin \"noise\": ValueError: no");
}

TEST(RankFailure, RestartsWhenOneRankAloneReportsAFailure) {
  Cluster cluster = restartable(1);
  cluster.start();
  cluster.worker(0).done("failed", {}, "the disk is full");
  cluster.settle();
  EXPECT_EQ(cluster.worker(0).key().generation, Generation(1))
      << "waits for the death that may have caused it";
  cluster.advance(2s);
  EXPECT_EQ(cluster.worker(0).key().generation, Generation(2));
}

TEST(RankFailure, CountsARankSilentForTenSecondsAsDead) {
  Cluster cluster = restartable(1);
  cluster.start();
  cluster.advance(60s);
  EXPECT_TRUE(cluster.killed.empty());
  cluster.worker_script[1].heartbeats = false;
  cluster.advance(9s);
  EXPECT_TRUE(cluster.killed.empty());
  cluster.worker_script[1].heartbeats = true;
  cluster.advance(2s);
  EXPECT_TRUE(cluster.killed.empty()) << "a heartbeat begins the ten seconds anew";
  cluster.worker_script[1].heartbeats = false;
  cluster.advance(11s);
  ASSERT_FALSE(cluster.killed.empty());
  EXPECT_EQ(cluster.killed[0].rank, 1);
  EXPECT_EQ(cluster.events_named("crash")[0].reason, "no heartbeat for 10 s");
}

TEST(RankFailure, SendsHeartbeatsToTheRanksEachSecond) {
  Cluster cluster = restartable(0);
  cluster.start();
  const auto before = cluster.worker(0).all<Heartbeat>().size();
  cluster.advance(5s);
  EXPECT_EQ(cluster.worker(0).all<Heartbeat>().size(), before + 5);
}

TEST(RankFailure, LeavesAGivenUpPluginOutOfTheNextGeneration) {
  PluginConfig plugin = plugin_named("noise");
  plugin.on_failure.restarts = 0;
  Cluster cluster({.ranks = 2, .max_restarts = 1, .plugins = {plugin}});
  cluster.start();
  cluster.crash_host(0, 0);
  cluster.checkpoint = "/run/checkpoints/step-00000100";
  cluster.crash_worker(1);
  EXPECT_TRUE(cluster.worker(0).last<StartWorker>().routes.empty());
  EXPECT_TRUE(cluster.worker(1).last<StartWorker>().routes.empty());
  EXPECT_FALSE(cluster.has_host(0, 1));
}

}  // namespace
}  // namespace bulkhead
