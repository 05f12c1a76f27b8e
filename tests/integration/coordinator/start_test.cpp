// How a run begins: greetings, loading, routes, attaching.
#include <gtest/gtest.h>

#include "support/cluster.h"

namespace bulkhead {
namespace {

using namespace std::chrono_literals;

Hello hello_of(const std::string& role, std::int64_t generation) {
  Hello hello;
  hello.role = role;
  hello.secret = Cluster::kSecret;
  hello.generation = Generation(generation);
  return hello;
}

// What a stranger is told.
std::string answer_to(Cluster& cluster, const Message& first) {
  auto channel = cluster.stranger();
  std::string answer = "nothing";
  channel->start({.on_message =
                      [&](const Message& message) {
                        answer = std::string(type_of(message));
                        if (const auto* refuse = std::get_if<Refuse>(&message))
                          answer += ": " + refuse->reason;
                      },
                  .on_closed = [](const Error&) {}});
  channel->send(first);
  cluster.settle();
  return answer;
}

TEST(Start, LaunchesARankScopedPluginOncePerRankAndAJobScopedOneOnce) {
  Cluster cluster({.ranks = 2, .plugins = {plugin_named("a"), plugin_named("log", "job")}});
  cluster.start();
  EXPECT_EQ(cluster.launched.size(), 2U + 2U + 1U);
  EXPECT_TRUE(cluster.has_host(0, 1));
  EXPECT_TRUE(cluster.has_host(1, 0));
  EXPECT_FALSE(cluster.has_host(1, 1));
}

TEST(Start, WelcomesWithTheVersionAndSendsEachHostItsFacts) {
  Cluster cluster({.ranks = 2, .plugins = {plugin_named("a")}});
  cluster.start();
  EXPECT_EQ(cluster.worker(1).last<Welcome>().version, kProtocolMax);
  const Load load = cluster.host(0, 1).last<Load>();
  EXPECT_EQ(load.config.name, "a");
  EXPECT_EQ(load.facts.plugin, "a");
  EXPECT_EQ(load.facts.rank, 1);
  EXPECT_EQ(load.facts.world_size, 2);
  EXPECT_TRUE(load.facts.is_distributed);
  EXPECT_FALSE(load.facts.is_main);
  EXPECT_EQ(load.facts.map_loc.at("cuda:0"), "cpu");
  EXPECT_EQ(load.generation, Generation(1));
}

TEST(Start, HoldsTheRanksBackUntilEveryPluginHasLoaded) {
  Cluster cluster({.ranks = 2, .plugins = {plugin_named("slow"), plugin_named("quick")}});
  cluster.host_script[0].loads = false;
  cluster.start();
  EXPECT_FALSE(cluster.worker(0).got<StartWorker>());
  cluster.host(0, 0).send(Loaded{});
  cluster.settle();
  EXPECT_FALSE(cluster.worker(0).got<StartWorker>());
  cluster.host(0, 1).send(Loaded{});
  cluster.settle();
  EXPECT_TRUE(cluster.worker(0).got<StartWorker>());
  EXPECT_TRUE(cluster.worker(1).got<StartWorker>());
}

TEST(Start, GivesEachRankTheRoutesOfThePluginsThatItTalksTo) {
  Cluster cluster({.ranks = 2, .plugins = {plugin_named("a"), plugin_named("log", "job")}});
  cluster.host_script[0].traits.hooks = {"on_step_end"};
  cluster.start();
  const auto first = cluster.worker(0).last<StartWorker>();
  const auto second = cluster.worker(1).last<StartWorker>();
  ASSERT_EQ(first.routes.size(), 2U);
  EXPECT_EQ(first.routes[0].traits.hooks, std::vector<std::string>{"on_step_end"});
  EXPECT_EQ(first.routes[1].config.name, "log");
  ASSERT_EQ(second.routes.size(), 1U);
  EXPECT_EQ(second.facts.rank, 1);
  EXPECT_FALSE(first.restarted);
  EXPECT_EQ(first.resume, "");
}

TEST(Start, NamesTheSameFreshEndpointToAWorkerAndItsHost) {
  Cluster cluster({.ranks = 2, .plugins = {plugin_named("a")}});
  cluster.start();
  const auto at_worker = cluster.worker(1).last<AttachHost>();
  const auto at_host = cluster.host(0, 1).last<Attach>();
  EXPECT_EQ(at_worker.endpoint, at_host.endpoint);
  EXPECT_NE(at_worker.endpoint, cluster.worker(0).last<AttachHost>().endpoint);
  EXPECT_EQ(at_worker.host_generation, Generation(1));
  EXPECT_EQ(at_host.worker_generation, Generation(1));
  EXPECT_FALSE(at_worker.lived_on);
}

TEST(Start, TellsTheOtherRanksWhereTheStoreOfRankZeroIs) {
  Cluster cluster({.ranks = 3});
  cluster.start();
  EXPECT_EQ(cluster.worker(1).last<StoreReady>().port, 4000);
  EXPECT_EQ(cluster.worker(2).last<StoreReady>().host, "127.0.0.1");
  EXPECT_FALSE(cluster.worker(0).got<StoreReady>());
}

TEST(Start, RecordsThatAHostIsReadyAndHowLongItTook) {
  Cluster cluster({.ranks = 1, .plugins = {plugin_named("a")}});
  cluster.host_script[0].loads = false;
  cluster.start();
  cluster.advance(2s);
  cluster.host(0, 0).send(Loaded{});
  cluster.settle();
  const auto ready = cluster.events_named("ready");
  ASSERT_EQ(ready.size(), 1U);
  EXPECT_EQ(ready[0].plugin, "a");
  EXPECT_EQ(ready[0].generation, 1);
  EXPECT_NEAR(ready[0].seconds.value(), 2.0, 0.01);
}

TEST(Start, RefusesAWrongSecretInASentence) {
  Cluster cluster({.ranks = 1});
  cluster.start();
  Hello hello = hello_of("worker", 1);
  hello.secret = "guessed";
  EXPECT_EQ(answer_to(cluster, hello),
            "refuse: the secret of this run was not given: BULKHEAD_SECRET differs");
}

TEST(Start, RefusesVersionsThatDoNotOverlap) {
  Cluster cluster({.ranks = 1});
  cluster.start();
  Hello hello = hello_of("worker", 1);
  hello.version_min = hello.version_max = kProtocolMax + 1;
  EXPECT_TRUE(answer_to(cluster, hello).starts_with("refuse: protocol versions do not overlap"));
}

TEST(Start, RefusesAProcessThatNobodyWaitsFor) {
  Cluster cluster({.ranks = 1, .plugins = {plugin_named("a")}});
  cluster.start();
  EXPECT_EQ(answer_to(cluster, hello_of("worker", 1)), "refuse: no rank 0 generation 1 is waited for");
  Hello far = hello_of("worker", 1);
  far.rank = 7;
  EXPECT_EQ(answer_to(cluster, far), "refuse: no rank 7 generation 1 is waited for");
  Hello host = hello_of("host", 9);
  EXPECT_EQ(answer_to(cluster, host), "refuse: no host of plugin 0 for rank 0 generation 9 is waited for");
  EXPECT_EQ(answer_to(cluster, hello_of("guest", 1)),
            "refuse: the role must be worker or host, not \"guest\"");
}

TEST(Start, RefusesAFirstMessageThatIsNoHello) {
  Cluster cluster({.ranks = 1});
  cluster.start();
  EXPECT_EQ(answer_to(cluster, Heartbeat{}), "refuse: the first message must be hello, not heartbeat");
}

TEST(Start, DropsAndCountsMessagesOfAnotherGeneration) {
  Cluster cluster({.ranks = 1, .plugins = {plugin_named("a")}});
  cluster.start();
  const std::int64_t before = cluster.coordinator().stale_messages();
  cluster.worker(0).send_as_is(WorkerDone{.generation = Generation(0),
                                          .status = "completed",
                                          .reason = {},
                                          .key = {},
                                          .result = {},
                                          .plugins = {}});
  cluster.worker(0).send(HostReady{.generation = {}, .plugin = {}, .host_generation = Generation(0)});
  cluster.settle();
  EXPECT_EQ(cluster.coordinator().stale_messages(), before + 2);
  EXPECT_FALSE(cluster.ended);
}

TEST(Start, KillsAsHungAHostThatHasNotLoadedWithinFiveMinutes) {
  Cluster cluster({.ranks = 1, .plugins = {plugin_named("a")}});
  cluster.host_script[0].loads = false;
  cluster.start();
  cluster.advance(299s);
  EXPECT_TRUE(cluster.killed.empty());
  cluster.host_script[0].loads = true;
  cluster.advance(2s);
  ASSERT_EQ(cluster.killed.size(), 1U);
  EXPECT_EQ(cluster.events_named("hang").size(), 1U);
  EXPECT_EQ(cluster.host(0, 0).key().generation, Generation(2));
  EXPECT_TRUE(cluster.worker(0).got<StartWorker>());
}

TEST(Start, DoesNotChargeAHostForTheTimeInWhichItWaitsForOthers) {
  Cluster cluster({.ranks = 1, .plugins = {plugin_named("quick"), plugin_named("slow")}});
  cluster.host_script[1].loads = false;
  cluster.start();
  cluster.advance(290s);
  cluster.host(1, 0).send(Loaded{});
  cluster.advance(60s);
  EXPECT_TRUE(cluster.killed.empty());
  EXPECT_EQ(cluster.host(0, 0).key().generation, Generation(1));
}

}  // namespace
}  // namespace bulkhead
