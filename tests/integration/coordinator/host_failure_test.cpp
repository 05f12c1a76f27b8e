// What happens when a plugin host dies, hangs or talks nonsense: the ranks are
// told at once, and it comes back while its budget lasts.
#include <gtest/gtest.h>

#include "support/cluster.h"

namespace bulkhead {
namespace {

using namespace std::chrono_literals;

Cluster two_ranks_one_plugin(FailureConfig failure = {}) {
  PluginConfig plugin = plugin_named("noise");
  plugin.on_failure = failure;
  return Cluster({.ranks = 2, .plugins = {plugin}});
}

HostFault fault_of(const std::string& kind, std::int64_t generation) {
  HostFault fault;
  fault.host_generation = Generation(generation);
  fault.kind = kind;
  fault.reason = kind + " it is";
  fault.hook = "on_step_end";
  fault.step = 7;
  fault.seconds = 30;
  return fault;
}

TEST(HostFailure, TellsItsRankAloneAndAttachesANewGeneration) {
  Cluster cluster = two_ranks_one_plugin();
  cluster.start();
  cluster.crash_host(0, 1);
  const auto lost = cluster.worker(1).last<HostLost>();
  EXPECT_EQ(lost.reason, "SIGSEGV");
  EXPECT_TRUE(lost.restarting);
  EXPECT_EQ(lost.host_generation, Generation(1));
  EXPECT_FALSE(cluster.worker(0).got<HostLost>());
  EXPECT_EQ(cluster.host(0, 1).key().generation, Generation(2));
  const auto attach = cluster.worker(1).last<AttachHost>();
  EXPECT_EQ(attach.host_generation, Generation(2));
  EXPECT_EQ(attach.endpoint, cluster.host(0, 1).last<Attach>().endpoint);
  EXPECT_FALSE(attach.lived_on);
}

TEST(HostFailure, RecordsTheCallInWhichItDiedAndTheTimeToItsReturn) {
  Cluster cluster = two_ranks_one_plugin();
  cluster.worker_script[0].post.hook = "transform_train_batch";
  cluster.worker_script[0].post.step = 40;
  cluster.worker_script[0].post.batch = "step 40 micro 0";
  cluster.start();
  cluster.crash_host(0, 0, SIGABRT);
  const auto crash = cluster.events_named("crash");
  ASSERT_EQ(crash.size(), 1U);
  EXPECT_EQ(crash[0].reason, "SIGABRT");
  EXPECT_EQ(crash[0].hook, "transform_train_batch");
  EXPECT_EQ(crash[0].step, 40);
  EXPECT_EQ(crash[0].generation, 1);
  const auto restart = cluster.events_named("restart");
  ASSERT_EQ(restart.size(), 1U);
  EXPECT_EQ(restart[0].generation, 2);
  EXPECT_TRUE(restart[0].seconds.has_value());
}

TEST(HostFailure, RecordsACrashAlsoWhenTheRankDoesNotSayWhereItWas) {
  Cluster cluster({.ranks = 1, .plugins = {plugin_named("noise")}});
  cluster.worker_script[0].post.host_generation = Generation(99);
  cluster.start();
  const ProcessKey key = cluster.host(0, 0).key();
  cluster.coordinator().process_ended(key, {.exit_code = 0, .signal = {}});
  EXPECT_TRUE(cluster.events_named("crash").empty());
  cluster.advance(2s);
  ASSERT_EQ(cluster.events_named("crash").size(), 1U);
  EXPECT_EQ(cluster.events_named("crash")[0].reason, "exit 0");
}

TEST(HostFailure, WaitsLongerBeforeEachFurtherRestart) {
  Cluster cluster = two_ranks_one_plugin({.restarts = 3, .within_seconds = 300, .then = "disable"});
  cluster.start();
  cluster.crash_host(0, 0);
  EXPECT_TRUE(cluster.has_host(0, 0));
  cluster.crash_host(0, 0);
  EXPECT_FALSE(cluster.has_host(0, 0));
  cluster.advance(100ms);
  EXPECT_TRUE(cluster.has_host(0, 0));
  cluster.crash_host(0, 0);
  cluster.advance(150ms);
  EXPECT_FALSE(cluster.has_host(0, 0));
  cluster.advance(50ms);
  EXPECT_EQ(cluster.host(0, 0).key().generation, Generation(4));
}

TEST(HostFailure, SaysThatItDoesNotComeBackOnceTheBudgetIsSpent) {
  Cluster cluster = two_ranks_one_plugin({.restarts = 1, .within_seconds = 300, .then = "disable"});
  cluster.start();
  cluster.crash_host(0, 0);
  cluster.crash_host(0, 0);
  EXPECT_FALSE(cluster.worker(0).last<HostLost>().restarting);
  cluster.advance(10s);
  EXPECT_FALSE(cluster.has_host(0, 0));
  const auto disable = cluster.events_named("disable");
  ASSERT_EQ(disable.size(), 1U);
  EXPECT_EQ(disable[0].reason, "SIGSEGV; 2 deaths within 300 s, 1 restart allowed");
  EXPECT_FALSE(cluster.ended);
  EXPECT_TRUE(cluster.has_host(0, 1)) << "the other rank's host goes on until the ranks agree";
  for (const auto& plugin : cluster.coordinator().summary().plugins) EXPECT_EQ(plugin.state, "disabled");
}

TEST(HostFailure, AbortsTheRunWhereThePolicySaysSo) {
  Cluster cluster = two_ranks_one_plugin({.restarts = 0, .within_seconds = 300, .then = "abort"});
  cluster.worker_script[0].leaves_when_told = false;
  cluster.start();
  cluster.crash_host(0, 1);
  EXPECT_TRUE(cluster.worker(0).got<Stop>());
  cluster.advance(11s);
  EXPECT_TRUE(cluster.ended);
  EXPECT_EQ(cluster.coordinator().outcome().status, "aborted");
  EXPECT_EQ(cluster.coordinator().outcome().exit_code, 3);
  EXPECT_EQ(cluster.coordinator().outcome().reason,
            "plugin \"noise\": SIGSEGV; 1 death within 300 s, 0 restarts allowed");
}

TEST(HostFailure, LeavesAPluginOutOnAllRanksThatNeverCameUp) {
  Cluster cluster({.ranks = 2, .plugins = {plugin_named("noise"), plugin_named("fine")}});
  cluster.host_script[0].loads = false;
  cluster.start();
  cluster.host(0, 1).send(Loaded{});
  cluster.settle();
  for (int death = 0; death < 4; ++death) {
    cluster.crash_host(0, 0);
    cluster.advance(1s);
  }
  EXPECT_EQ(cluster.events_named("disable").size(), 1U);
  const auto started = cluster.worker(1).last<StartWorker>();
  ASSERT_EQ(started.routes.size(), 1U);
  EXPECT_EQ(started.routes[0].config.name, "fine");
  EXPECT_FALSE(cluster.has_host(0, 1));
}

TEST(HostFailure, KillsAHostThatItsRankReportsAsHung) {
  Cluster cluster = two_ranks_one_plugin();
  cluster.worker_script[0].post.hook = "on_step_end";
  cluster.start();
  cluster.worker(0).send(fault_of("hang", 1));
  cluster.settle();
  EXPECT_EQ(cluster.worker(0).last<HostLost>().reason, "hang");
  EXPECT_EQ(cluster.host(0, 0).key().generation, Generation(2));
  const auto hang = cluster.events_named("hang");
  ASSERT_EQ(hang.size(), 1U);
  EXPECT_EQ(hang[0].step, 7);
  EXPECT_EQ(hang[0].seconds, 30);
  EXPECT_TRUE(cluster.events_named("crash").empty()) << "told once";
  EXPECT_EQ(cluster.coordinator().summary().plugins[0].crashes[0].reason, "hang");
}

TEST(HostFailure, IgnoresAFaultOfAGenerationThatIsGone) {
  Cluster cluster = two_ranks_one_plugin();
  cluster.start();
  cluster.crash_host(0, 0);
  cluster.worker(0).send(fault_of("hang", 1));
  cluster.settle();
  EXPECT_TRUE(cluster.killed.empty());
  EXPECT_EQ(cluster.host(0, 0).key().generation, Generation(2));
}

TEST(HostFailure, KillsAHostThatSpeaksOutOfTurn) {
  Cluster cluster = two_ranks_one_plugin();
  cluster.start();
  cluster.host(0, 0).send(StoreReady{});
  cluster.settle();
  EXPECT_EQ(cluster.worker(0).last<HostLost>().reason,
            "garbage: sent store_ready to the coordinator out of turn");
  EXPECT_EQ(cluster.host(0, 0).key().generation, Generation(2));
}

TEST(HostFailure, DropsWhatTheDeadGenerationStillSaid) {
  Cluster cluster = two_ranks_one_plugin();
  cluster.start();
  const std::int64_t before = cluster.coordinator().stale_messages();
  cluster.crash_host(0, 0);
  cluster.worker(0).send(HostReady{.generation = {}, .plugin = {}, .host_generation = Generation(1)});
  cluster.settle();
  EXPECT_EQ(cluster.coordinator().stale_messages(), before + 1);
}

TEST(HostFailure, BeforeItIsAttachedAgainCostsTheRankNothing) {
  Cluster cluster = two_ranks_one_plugin();
  cluster.start();
  cluster.host_script[0].loads = false;
  cluster.crash_host(0, 0);
  cluster.host_script[0].loads = true;
  cluster.crash_host(0, 0);
  cluster.advance(1s);
  EXPECT_EQ(cluster.worker(0).all<HostLost>().size(), 1U);
  EXPECT_EQ(cluster.worker(0).last<AttachHost>().host_generation, Generation(3));
}

}  // namespace
}  // namespace bulkhead
