// The process that stands by while a host serves: when it is started, when it
// takes over, and that it is never left behind.
#include <gtest/gtest.h>

#include "support/cluster.h"

namespace bulkhead {
namespace {

using namespace std::chrono_literals;

Cluster one_rank(FailureConfig failure = {}) {
  PluginConfig plugin = plugin_named("noise");
  plugin.standby = true;
  plugin.on_failure = failure;
  return Cluster({.ranks = 1, .plugins = {plugin}});
}

ProcessKey host_key(std::int64_t generation) { return {Role::kHost, PluginId(0), 0, Generation(generation)}; }

bool was_launched(const Cluster& cluster, std::int64_t generation) {
  return std::ranges::count(cluster.launched, host_key(generation)) == 1;
}

TEST(Standby, IsStartedAWhileAfterTheHostIsReadyAndLoadsNothing) {
  Cluster cluster = one_rank();
  cluster.start();
  EXPECT_FALSE(was_launched(cluster, 2)) << "nothing competes with the start of the run";
  cluster.advance(1s);
  ASSERT_TRUE(was_launched(cluster, 2));
  EXPECT_TRUE(cluster.process(host_key(2)).got<Welcome>());
  EXPECT_FALSE(cluster.process(host_key(2)).got<Load>());
  EXPECT_EQ(cluster.events_named("ready").size(), 1U) << "nobody is told of it";
}

TEST(Standby, TakesOverAtOnceAndIsReplaced) {
  Cluster cluster = one_rank();
  cluster.start();
  cluster.advance(1s);
  const std::size_t launched = cluster.launched.size();
  cluster.crash_host(0, 0);
  EXPECT_EQ(cluster.launched.size(), launched) << "no start of a process lies between";
  EXPECT_EQ(cluster.host(0, 0).key().generation, Generation(2));
  EXPECT_TRUE(cluster.host(0, 0).got<Attach>());
  ASSERT_EQ(cluster.events_named("restart").size(), 1U);
  EXPECT_EQ(cluster.events_named("restart")[0].seconds, 0);
  cluster.advance(1s);
  EXPECT_TRUE(was_launched(cluster, 3));
}

TEST(Standby, ThatHasNotGreetedYetIsWaitedFor) {
  Cluster cluster = one_rank();
  cluster.start();
  cluster.host_script[0].greets = false;
  cluster.advance(1s);
  ASSERT_TRUE(was_launched(cluster, 2));
  cluster.crash_host(0, 0);
  EXPECT_TRUE(cluster.events_named("restart").empty());
  cluster.host_script[0].greets = true;
  cluster.process(host_key(2)).greet(Cluster::kSecret);
  cluster.settle();
  EXPECT_EQ(cluster.events_named("restart").size(), 1U);
}

TEST(Standby, ThatDiesIsStartedAgainLaterAndChargedToNobody) {
  Cluster cluster = one_rank({.restarts = 1, .within_seconds = 300, .then = "abort"});
  cluster.start();
  cluster.advance(400ms);
  for (std::int64_t generation = 2; generation < 5; ++generation) {
    cluster.crash(host_key(generation));
    cluster.advance(4s);
    EXPECT_TRUE(was_launched(cluster, generation + 1));
  }
  EXPECT_TRUE(cluster.events_named("crash").empty());
  cluster.crash_host(0, 0);
  ASSERT_EQ(cluster.events_named("restart").size(), 1U) << "the budget is whole";
  EXPECT_EQ(cluster.events_named("restart")[0].generation, 5) << "no number is given twice";
  EXPECT_EQ(cluster.coordinator().plugin_progress()[0].restarts, 1);
}

TEST(Standby, ThatTalksIsEnded) {
  Cluster cluster = one_rank();
  cluster.start();
  cluster.advance(1s);
  cluster.process(host_key(2)).send(Loaded{});
  cluster.settle();
  EXPECT_EQ(cluster.killed, std::vector{host_key(2)});
}

TEST(Standby, GoesWithAPluginThatIsGivenUp) {
  Cluster cluster = one_rank({.restarts = 0, .within_seconds = 300, .then = "disable"});
  cluster.start();
  cluster.advance(1s);
  cluster.crash_host(0, 0);
  cluster.advance(1s);
  EXPECT_EQ(cluster.live_processes(), 1U) << "the rank";
}

TEST(Standby, GoesWithTheRun) {
  Cluster cluster = one_rank();
  cluster.start();
  cluster.advance(1s);
  EXPECT_EQ(cluster.live_processes(), 3U);
  cluster.worker(0).done("completed");
  cluster.advance(2s);
  EXPECT_TRUE(cluster.ended);
  EXPECT_EQ(cluster.live_processes(), 0U);
}

TEST(Standby, IsNotStartedWhereItIsNotWanted) {
  Cluster cluster({.ranks = 1, .plugins = {plugin_named("noise")}});
  cluster.start();
  cluster.advance(5s);
  EXPECT_FALSE(was_launched(cluster, 2));
}

}  // namespace
}  // namespace bulkhead
