#include "gathering.h"

#include <vector>

#include <gtest/gtest.h>

#include "support/stream_probe.h"

namespace bulkhead {
namespace {

// A stream in a call, with what the rank told the coordinator.
struct Rank {
  explicit Rank(bool alone = false)
      : probe(route_with({"on_step_end"}, false)),
        gathering({PluginId{3}, alone,
                   [this](Message message) { parts.push_back(std::get<GatherPart>(message)); }}) {
    probe.attach();
    probe.answer();
    probe.submit("on_step_end", 7);
  }

  void ask() {
    probe.ask("all_gather");
    AskRequest request = probe.asked.back();
    request.batch = batch_of(5);
    gathering.ask(probe.stream, std::move(request), probe.now);
  }
  void want(const std::string& call) {
    GatherWanted wanted;
    wanted.plugin = PluginId{3};
    wanted.call = call;
    gathering.wanted(probe.stream, wanted);
  }

  std::vector<GatherPart> parts;
  Probe probe;
  Gathering gathering;
};

const std::string kCall = "1 on_step_end at step 7";

TEST(Gathering, TellsTheCoordinatorItsPart) {
  Rank rank;
  rank.ask();
  ASSERT_EQ(rank.parts.size(), 1u);
  EXPECT_EQ(rank.parts[0].call, kCall);
  EXPECT_EQ(rank.parts[0].state, "part");
  EXPECT_EQ(value_of(rank.parts[0].batch), 5);
}

TEST(Gathering, HandsTheWholeToTheCallThatWaits) {
  Rank rank;
  rank.ask();
  GatherDone done;
  done.plugin = PluginId{3};
  done.call = kCall;
  done.batch = batch_of(9);
  rank.gathering.done(rank.probe.stream, done, rank.probe.now);
  EXPECT_EQ(value_of(rank.probe.answers.at(0).batch), 9);
}

TEST(Gathering, WhatSomeRankDidNotSayIsAnErrorWhereItWasAsked) {
  Rank rank;
  rank.ask();
  GatherDone done;
  done.call = kCall;
  done.missing = "rank 1 returned from on_step_end at step 7 without calling all_gather";
  rank.gathering.done(rank.probe.stream, done, rank.probe.now);
  EXPECT_EQ(rank.probe.answers.at(0).failure->message, done.missing);
}

TEST(Gathering, ACallThatEndsWithoutAskingSaysSoToThoseWhoWait) {
  Rank rank;
  rank.want(kCall);
  EXPECT_TRUE(rank.parts.empty()) << "the call may still ask";
  rank.gathering.over(1, false);
  ASSERT_EQ(rank.parts.size(), 1u);
  EXPECT_EQ(rank.parts[0].state, "over");
  EXPECT_EQ(rank.parts[0].call, kCall);
}

TEST(Gathering, ACallThatHadEndedBeforeSaysSoAtOnce) {
  Rank rank;
  rank.probe.answer();
  rank.want(kCall);
  EXPECT_EQ(rank.parts.at(0).state, "over");
}

TEST(Gathering, AQuestionStillAheadIsWaitedFor) {
  Rank rank;
  rank.want("2 on_step_end at step 8");
  EXPECT_TRUE(rank.parts.empty());
  rank.gathering.over(2, true);
  EXPECT_EQ(rank.parts.at(0).state, "gone");
}

TEST(Gathering, HavingAskedItIsNotOver) {
  Rank rank;
  rank.want(kCall);
  rank.ask();
  rank.gathering.over(1, false);
  ASSERT_EQ(rank.parts.size(), 1u);
  EXPECT_EQ(rank.parts[0].state, "part");
}

TEST(Gathering, AloneItAnswersItself) {
  Rank rank(true);
  rank.ask();
  EXPECT_TRUE(rank.parts.empty());
  ASSERT_EQ(rank.probe.answers.size(), 1u);
  EXPECT_EQ(rank.probe.answers[0].batch.at(0).name, "0");
}

}  // namespace
}  // namespace bulkhead
