// Plugin processes that several ranks share (scopes node and job), and the
// all-gathers of those that they do not share.
#include <gtest/gtest.h>

#include "support/cluster.h"

namespace bulkhead {
namespace {

using namespace std::chrono_literals;

std::vector<std::string> route_names(Cluster& cluster, std::int64_t rank) {
  std::vector<std::string> names;
  for (const PluginRoute& route : cluster.worker(rank).last<StartWorker>().routes) {
    names.push_back(route.config.name);
  }
  return names;
}

GatherPart part_of(const std::string& state, std::int64_t number = 0) {
  GatherPart part;
  part.call = "on_step_end 7 0";
  part.number = number;
  part.state = state;
  if (state == "part") part.batch = {{"value", DType::kUInt8, {1}, Blob::of(std::string("x"))}};
  return part;
}

TEST(SharedProcess, IsOnePerNodeWithRankZeroAsItsHome) {
  Cluster cluster({.ranks = 3, .plugins = {plugin_named("n", "node")}});
  cluster.start();
  EXPECT_EQ(cluster.launched.size(), 3U + 1U);
  const Facts facts = cluster.host(0, 0).last<Load>().facts;
  EXPECT_EQ(facts.scope, "node");
  EXPECT_EQ(facts.rank, 0);
  EXPECT_EQ(facts.local_world_size, 3);
  EXPECT_TRUE(cluster.worker(0).got<AttachHost>());
  EXPECT_FALSE(cluster.worker(1).got<AttachHost>());
}

TEST(SharedProcess, IsRoutedToTheRanksThatCallIt) {
  Cluster cluster({.ranks = 2,
                   .plugins = {plugin_named("a"), plugin_named("n", "node"), plugin_named("log", "job"),
                               plugin_named("aug", "job")}});
  cluster.host_script[3].traits.hooks = {"transform_image", "on_step_end"};
  cluster.host_script[3].traits.stateless = true;
  cluster.start();
  EXPECT_EQ(route_names(cluster, 0), (std::vector<std::string>{"a", "n", "log", "aug"}));
  EXPECT_EQ(route_names(cluster, 1), (std::vector<std::string>{"a", "n", "aug"}));
}

TEST(SharedProcess, GivesEveryOtherRankAWayToItsHome) {
  Cluster cluster({.ranks = 3, .max_restarts = 1, .plugins = {plugin_named("n", "node")}});
  cluster.start();
  const auto relays = cluster.worker(2).last<StartWorker>().relays;
  ASSERT_EQ(relays.size(), 3U);
  EXPECT_EQ(relays[0], "");
  EXPECT_NE(relays[1], relays[2]);
  EXPECT_FALSE(relays[1].empty());
  EXPECT_EQ(relays, cluster.worker(0).last<StartWorker>().relays);
  cluster.crash_worker(1);
  cluster.advance(1s);
  const auto fresh = cluster.worker(0).last<StartWorker>().relays;
  ASSERT_EQ(fresh.size(), 3U);
  EXPECT_NE(fresh[1], relays[1]);
}

TEST(SharedProcess, NeedsNoWayWhereOnlyRankZeroCallsIt) {
  Cluster cluster({.ranks = 2, .plugins = {plugin_named("a"), plugin_named("log", "job")}});
  cluster.start();
  EXPECT_TRUE(cluster.worker(1).last<StartWorker>().relays.empty());
  Cluster alone({.ranks = 1, .plugins = {plugin_named("n", "node")}});
  alone.start();
  EXPECT_TRUE(alone.worker(0).last<StartWorker>().relays.empty());
}

TEST(SharedProcess, ThatDiesOrIsGivenUpIsToldToItsHomeOnly) {
  PluginConfig plugin = plugin_named("n", "node");
  plugin.on_failure.restarts = 1;
  Cluster cluster({.ranks = 2, .plugins = {plugin}});
  cluster.start();
  cluster.crash_host(0, 0);
  cluster.advance(1s);
  EXPECT_TRUE(cluster.worker(0).last<HostLost>().restarting);
  EXPECT_EQ(cluster.worker(0).all<AttachHost>().size(), 2U);
  cluster.crash_host(0, 0);
  cluster.advance(1s);
  EXPECT_FALSE(cluster.worker(0).last<HostLost>().restarting);
  EXPECT_FALSE(cluster.worker(1).got<HostLost>());
  EXPECT_EQ(cluster.coordinator().plugin_progress()[0].state, "disabled");
}

TEST(AllGather, TellsEveryRankWhenAllPartsAreThere) {
  Cluster cluster({.ranks = 2, .plugins = {plugin_named("a")}});
  cluster.start();
  cluster.worker(1).send(part_of("part"));
  cluster.settle();
  EXPECT_FALSE(cluster.worker(1).got<GatherDone>());
  cluster.worker(0).send(part_of("part"));
  cluster.settle();
  for (std::int64_t rank = 0; rank < 2; ++rank) {
    const auto done = cluster.worker(rank).last<GatherDone>();
    EXPECT_EQ(done.call, "on_step_end 7 0");
    ASSERT_EQ(done.batch.size(), 2U);
    EXPECT_EQ(done.batch[1].name, "1");
    EXPECT_TRUE(done.missing.empty());
    EXPECT_EQ(done.generation, cluster.worker(rank).key().generation);
  }
}

TEST(AllGather, GoesOnWithoutARankWhosePluginIsGivenUp) {
  PluginConfig plugin = plugin_named("a");
  plugin.on_failure.restarts = 0;
  Cluster cluster({.ranks = 2, .plugins = {plugin}});
  cluster.start();
  cluster.worker(0).send(part_of("part"));
  cluster.settle();
  cluster.crash_host(0, 1);
  const auto done = cluster.worker(0).last<GatherDone>();
  ASSERT_EQ(done.batch.size(), 1U);
  EXPECT_EQ(done.batch[0].name, "0");
}

TEST(AllGather, WaitsForAHostThatIsRestarted) {
  Cluster cluster({.ranks = 2, .plugins = {plugin_named("a")}});
  cluster.start();
  cluster.worker(0).send(part_of("part"));
  cluster.crash_host(0, 1);
  cluster.advance(5s);
  EXPECT_FALSE(cluster.worker(0).got<GatherDone>());
  cluster.worker(1).send(part_of("part"));
  cluster.settle();
  EXPECT_EQ(cluster.worker(0).last<GatherDone>().batch.size(), 2U);
}

TEST(AllGather, IsForgottenWhenTheRanksStartAgain) {
  Cluster cluster({.ranks = 2, .max_restarts = 1, .plugins = {plugin_named("a")}});
  cluster.start();
  cluster.worker(0).send(part_of("part"));
  cluster.settle();
  cluster.crash_worker(1);
  cluster.advance(1s);
  cluster.worker(1).send(part_of("part"));
  cluster.settle();
  EXPECT_FALSE(cluster.worker(1).got<GatherDone>());
}

TEST(AllGather, ForAProcessThatIsSharedOrUnknownIsGarbage) {
  for (const std::int64_t plugin : {0, 7}) {
    Cluster cluster({.ranks = 2, .plugins = {plugin_named("log", "job")}});
    cluster.start();
    GatherPart part = part_of("part");
    part.plugin = PluginId(plugin);
    cluster.worker(1).send(part);
    cluster.advance(1s);
    EXPECT_NE(cluster.coordinator().outcome().reason.find("garbage"), std::string::npos);
  }
}

}  // namespace
}  // namespace bulkhead
