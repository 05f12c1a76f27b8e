// How a run ends: done, stopped by a signal, killed; and what it leaves to say.
#include <gtest/gtest.h>

#include "support/cluster.h"

namespace bulkhead {
namespace {

using namespace std::chrono_literals;

Value good_result(const std::string& sha = "abc") {
  return {
      {"steps", 100},
      {"epochs", 2},
      {"samples", 3200},
      {"final_loss", 1.5},
      {"validation", {{"loss", 1.7}}},
      {"params_sha256", sha},
      {"seconds", 12.5},
      {"tokens_per_second", 1000.0},
      {"plugin_overhead", 0.01},
      {"resumed_from", 0},
      {"batches", {{"trained", 200}, {"lost", 0}, {"duplicated", 0}, {"skipped", 1}, {"dead_lettered", 2}}}};
}

TEST(Ending, OfARunThatAllRanksCompleted) {
  Cluster cluster({.ranks = 2, .plugins = {plugin_named("a")}});
  cluster.start();
  cluster.worker(1).done("completed", {{"params_sha256", "abc"}});
  cluster.settle();
  EXPECT_FALSE(cluster.worker(1).got<Stop>()) << "rank 0 may still need it";
  cluster.worker(0).done("completed", good_result());
  cluster.advance(100ms);
  EXPECT_TRUE(cluster.ended);
  EXPECT_TRUE(cluster.killed.empty());
  EXPECT_EQ(cluster.live_processes(), 0U);
  EXPECT_EQ(cluster.coordinator().outcome().status, "completed");
  EXPECT_EQ(cluster.coordinator().outcome().exit_code, 0);
}

TEST(Ending, FillsTheSummaryFromTheReports) {
  Cluster cluster({.ranks = 2, .plugins = {plugin_named("a")}});
  cluster.start();
  cluster.crash_host(0, 1, SIGSEGV);
  const auto report_and_leave = [&](std::int64_t rank) {
    WorkerDone done;
    done.status = "stopped";
    done.reason = rank == 0 ? "no better loss" : "";
    done.result = good_result();
    done.plugins = {{.plugin = {},
                     .calls = 50 + rank,
                     .errors = 1,
                     .retries = 2,
                     .replays = 3,
                     .events_sent = 4,
                     .events_dropped = 0,
                     .p50_us = 60,
                     .p99_us = 900,
                     .waited_seconds = 0.1}};
    cluster.worker(rank).send(done);
  };
  report_and_leave(0);
  report_and_leave(1);
  cluster.advance(20s);
  ASSERT_TRUE(cluster.ended);
  const Summary summary = cluster.coordinator().summary();
  EXPECT_EQ(summary.status, "stopped");
  EXPECT_EQ(summary.exit_code, 0);
  EXPECT_EQ(summary.reason, "no better loss");
  EXPECT_EQ(summary.steps, 100);
  EXPECT_EQ(summary.final_loss, 1.5);
  EXPECT_EQ(summary.validation["loss"], 1.7);
  EXPECT_EQ(summary.batches.dead_lettered, 2);
  ASSERT_EQ(summary.plugins.size(), 2U);
  EXPECT_EQ(summary.plugins[0].calls, 50);
  EXPECT_EQ(summary.plugins[1].calls, 51);
  EXPECT_EQ(summary.plugins[1].rank, 1);
  EXPECT_EQ(summary.plugins[1].starts, 2);
  EXPECT_EQ(summary.plugins[1].state, "ready");
  ASSERT_EQ(summary.plugins[1].crashes.size(), 1U);
  EXPECT_EQ(summary.plugins[1].crashes[0].signal, "SIGSEGV");
  EXPECT_EQ(summary.ranks[1].restarts, 0);
}

TEST(Ending, KillsARankThatIsDoneButDoesNotLeave) {
  Cluster cluster({.ranks = 1});
  cluster.worker_script[0].leaves_when_told = false;
  cluster.start();
  cluster.worker(0).done("completed", good_result());
  cluster.advance(9s);
  EXPECT_FALSE(cluster.ended);
  cluster.advance(2s);
  EXPECT_TRUE(cluster.ended);
  EXPECT_EQ(cluster.coordinator().outcome().status, "completed");
  EXPECT_EQ(cluster.coordinator().summary().ranks[0].exit, -SIGKILL);
}

TEST(Ending, KillsAHostThatDoesNotStopWithinASecond) {
  Cluster cluster({.ranks = 1, .plugins = {plugin_named("a")}});
  cluster.host_script[0].obeys_stop = false;
  cluster.start();
  cluster.worker(0).done("completed", good_result());
  cluster.advance(900ms);
  EXPECT_FALSE(cluster.ended);
  cluster.advance(200ms);
  EXPECT_TRUE(cluster.ended);
  EXPECT_TRUE(cluster.coordinator().summary().plugins[0].crashes.empty());
}

TEST(Ending, FailsWhereTheRanksEndWithDifferentWeights) {
  Cluster cluster({.ranks = 2});
  cluster.start();
  cluster.worker(0).done("completed", good_result("abc"));
  cluster.worker(1).done("completed", {{"params_sha256", "abd"}});
  cluster.advance(1s);
  EXPECT_EQ(cluster.coordinator().outcome().status, "failed");
  EXPECT_EQ(cluster.coordinator().outcome().exit_code, 1);
  EXPECT_EQ(cluster.coordinator().outcome().reason,
            "the ranks ended with different weights: rank 1 has abd, an earlier one abc");
}

TEST(Ending, StopsInOrderOnTheFirstSignal) {
  Cluster cluster({.ranks = 2, .plugins = {plugin_named("a")}});
  cluster.start();
  cluster.coordinator().request_stop("SIGINT");
  cluster.settle();
  EXPECT_TRUE(cluster.killed.empty());
  cluster.advance(1s);
  EXPECT_TRUE(cluster.ended);
  EXPECT_EQ(cluster.coordinator().outcome().status, "interrupted");
  EXPECT_EQ(cluster.coordinator().outcome().exit_code, 130);
  EXPECT_EQ(cluster.coordinator().outcome().reason, "SIGINT");
}

TEST(Ending, KillsRanksThatDoNotStopWithinTheGrace) {
  Cluster cluster({.ranks = 2});
  cluster.worker_script[1].obeys_stop = false;
  cluster.start();
  cluster.coordinator().request_stop("SIGTERM");
  cluster.advance(29s);
  EXPECT_FALSE(cluster.ended);
  EXPECT_TRUE(cluster.killed.empty());
  cluster.advance(2s);
  EXPECT_TRUE(cluster.ended);
  EXPECT_EQ(cluster.coordinator().outcome().exit_code, 130);
  EXPECT_EQ(cluster.live_processes(), 0U);
}

TEST(Ending, KillsAtOnceOnTheSecondSignal) {
  Cluster cluster({.ranks = 2});
  cluster.worker_script[0].obeys_stop = false;
  cluster.start();
  cluster.coordinator().request_stop("SIGINT");
  cluster.settle();
  cluster.coordinator().request_stop("SIGINT");
  cluster.settle();
  EXPECT_EQ(cluster.killed.front().rank, 0);
  cluster.advance(50ms);
  EXPECT_TRUE(cluster.ended);
  EXPECT_EQ(cluster.coordinator().outcome().exit_code, 130);
}

TEST(Ending, DoesNotWaitForAnythingWhenStoppedBeforeTheStart) {
  Cluster cluster({.ranks = 2, .plugins = {plugin_named("a")}});
  cluster.host_script[0].loads = false;
  cluster.start();
  cluster.coordinator().request_stop("SIGINT");
  cluster.advance(2s);
  EXPECT_TRUE(cluster.ended);
  EXPECT_EQ(cluster.coordinator().outcome().status, "interrupted");
}

TEST(Ending, IsCompletedWhenTheSignalCameAfterTheLastStep) {
  Cluster cluster({.ranks = 1});
  cluster.worker_script[0].obeys_stop = false;
  cluster.start();
  cluster.coordinator().request_stop("SIGINT");
  cluster.settle();
  cluster.worker(0).done("completed", good_result());
  cluster.advance(1s);
  EXPECT_EQ(cluster.coordinator().outcome().status, "completed");
  EXPECT_EQ(cluster.coordinator().outcome().exit_code, 0);
}

TEST(Ending, ARankThatDiesWhileStoppingIsNotRestarted) {
  Cluster cluster({.ranks = 2, .max_restarts = 5});
  for (auto& script : cluster.worker_script) script.obeys_stop = false;
  cluster.start();
  cluster.coordinator().request_stop("SIGINT");
  cluster.settle();
  cluster.crash_worker(0);
  cluster.advance(1s);
  EXPECT_TRUE(cluster.ended);
  EXPECT_EQ(cluster.coordinator().outcome().exit_code, 130);
}

TEST(Ending, PassesOnMetricsAndEventsAsTheyCame) {
  Cluster cluster({.ranks = 1});
  cluster.start();
  cluster.worker(0).send(MetricsLine{.generation = {}, .fields = {{"step", 3}, {"loss", 2.5}, {"noise", 1}}});
  cluster.worker(0).send(
      EventLine{.generation = {},
                .event = "slow_hook",
                .fields = {{"plugin", "a"}, {"hook", "on_step_end"}, {"seconds", 0.7}, {"extra", 1}}});
  cluster.settle();
  ASSERT_EQ(cluster.metrics.size(), 1U);
  EXPECT_EQ(cluster.metrics[0]["noise"], 1);
  EXPECT_TRUE(cluster.metrics[0].contains("time"));
  const auto slow = cluster.events_named("slow_hook");
  ASSERT_EQ(slow.size(), 1U);
  EXPECT_EQ(slow[0].plugin, "a");
  EXPECT_EQ(slow[0].rank, 0);
  EXPECT_EQ(slow[0].to_value()["extra"], 1);
  EXPECT_GT(slow[0].time, 0);
}

TEST(Ending, OfAFailedRunTellsHowFarItCame) {
  Cluster cluster({.ranks = 1});
  cluster.start();
  cluster.worker(0).send(
      MetricsLine{.generation = {}, .fields = {{"step", 30}, {"epoch", 1}, {"loss", 2.5}}});
  cluster.settle();
  cluster.crash_worker(0);
  cluster.advance(1s);
  const Summary summary = cluster.coordinator().summary();
  EXPECT_EQ(summary.status, "failed");
  EXPECT_EQ(summary.steps, 30);
  EXPECT_EQ(summary.final_loss, 2.5);
  EXPECT_EQ(summary.ranks[0].exit, -SIGKILL);
}

TEST(Ending, OfAFailureThatTheRanksAgreedOnIsNotTriedAgain) {
  Cluster cluster({.ranks = 2, .max_restarts = 3});
  cluster.start();
  cluster.worker(1).done("failed", {{"agreed", true}}, "early: ValueError: no");
  cluster.advance(30s);
  EXPECT_FALSE(cluster.ended) << "rank 0 is in an on_exception that takes its time";
  cluster.worker(0).done("failed", {{"agreed", true}}, "early: ValueError: no");
  cluster.advance(100ms);
  ASSERT_TRUE(cluster.ended);
  EXPECT_EQ(cluster.coordinator().outcome().status, "failed");
  EXPECT_EQ(cluster.coordinator().outcome().exit_code, 1);
  EXPECT_EQ(cluster.coordinator().outcome().reason, "early: ValueError: no");
  EXPECT_EQ(cluster.launched.size(), 2U);
  EXPECT_TRUE(cluster.killed.empty());
}

TEST(Ending, OfAnAgreedFailureComesAlsoWhenAnotherRankDiesOverIt) {
  Cluster cluster({.ranks = 2, .max_restarts = 3});
  cluster.start();
  cluster.worker(0).done("failed", {{"agreed", true}}, "early: ValueError: no");
  cluster.settle();
  cluster.crash_worker(1);
  cluster.advance(100ms);
  ASSERT_TRUE(cluster.ended);
  EXPECT_EQ(cluster.coordinator().outcome().reason, "early: ValueError: no");
  EXPECT_EQ(cluster.launched.size(), 2U);
}

TEST(Ending, OfARunWhoseRanksAgreedToStopOnASignalToOneOfThem) {
  Cluster cluster({.ranks = 2, .max_restarts = 3});
  cluster.start();
  cluster.worker(1).done("interrupted", Value::object(), "SIGTERM to rank 1");
  cluster.advance(1s);
  EXPECT_FALSE(cluster.worker(0).got<Stop>()) << "it has agreed already";
  EXPECT_EQ(cluster.events_named("stop").size(), 1U);
  cluster.coordinator().request_stop("SIGTERM");
  cluster.advance(1s);
  EXPECT_TRUE(cluster.killed.empty()) << "the first signal to us, though the ranks were first";
  cluster.worker(0).done("interrupted", good_result(), "SIGTERM to rank 1");
  cluster.advance(100ms);
  ASSERT_TRUE(cluster.ended);
  EXPECT_EQ(cluster.coordinator().outcome().status, "interrupted");
  EXPECT_EQ(cluster.coordinator().outcome().exit_code, 130);
  EXPECT_EQ(cluster.coordinator().outcome().reason, "SIGTERM to rank 1");
  EXPECT_TRUE(cluster.killed.empty());
}

TEST(Ending, CountsTheErrorsOfEachKindAndTakesTheTestsMetrics) {
  Cluster cluster({.ranks = 2, .plugins = {plugin_named("a")}});
  cluster.start();
  const auto raise = [&](std::int64_t rank, const std::string& reason) {
    cluster.worker(rank).send(EventLine{
        .generation = {}, .event = "error", .fields = {{"plugin", "a"}, {"rank", rank}, {"reason", reason}}});
  };
  raise(1, "ValueError: no");
  raise(1, "KeyError: x\nmore");
  raise(1, "ValueError: no");
  for (int i = 0; i < 100; ++i) raise(0, "ValueError: step " + std::to_string(i));
  Value result = good_result();
  result["test"] = {{"loss", 1.25}};
  cluster.worker(0).done("completed", result);
  cluster.worker(1).done("completed", {{"params_sha256", "abc"}});
  cluster.advance(100ms);
  const Summary summary = cluster.coordinator().summary();
  EXPECT_EQ(summary.test["loss"], 1.25);
  EXPECT_EQ(to_json(summary)["plugins"][1]["errors_by_kind"].dump(),
            R"({"KeyError: x":1,"ValueError: no":2})");
  const auto& many = summary.plugins[0].errors_by_kind;
  EXPECT_EQ(many.size(), 33U);
  EXPECT_EQ(many.at("other errors"), 68);
}

}  // namespace
}  // namespace bulkhead
