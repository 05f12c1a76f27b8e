#include <string>

#include <gtest/gtest.h>

#include "support/stream_probe.h"

namespace bulkhead {
namespace {

using Standing = PluginStream::Standing;

TEST(PluginStreamAsks, PassesAQuestionOnAndItsAnswerBack) {
  Probe probe(route_with({"on_step_end"}, false));
  probe.attach();
  probe.answer();
  probe.submit("on_step_end", 7);
  probe.ask("all_gather");
  ASSERT_EQ(probe.asked.size(), 1u);
  EXPECT_EQ(probe.asked[0].hook, "on_step_end");
  EXPECT_EQ(probe.asked[0].step, 7);
  probe.stream.answered(probe.asked[0].seq, 0, {}, batch_of(4), probe.now);
  ASSERT_EQ(probe.answers.size(), 1u);
  EXPECT_EQ(value_of(probe.answers[0].batch), 4);
}

TEST(PluginStreamAsks, TheDeadlineRestsWhileTheHostWaitsForItsAnswer) {
  Probe probe(route_with({"on_step_end"}, false));
  probe.attach();
  probe.answer();
  probe.submit("on_step_end", 0);
  probe.ask("weights");
  probe.now += 10h;
  probe.stream.on_tick(probe.now);
  EXPECT_TRUE(probe.faults.empty());
  probe.stream.answered(probe.asked[0].seq, 0, {}, batch_of(1), probe.now);
  probe.now += 31s;
  probe.stream.on_tick(probe.now);
  ASSERT_EQ(probe.faults.size(), 1u);
  EXPECT_EQ(probe.faults[0].kind, "hang");
}

TEST(PluginStreamAsks, ARetryAndAReplayGetTheRecordedAnswer) {
  Probe probe(route_with({"on_step_end", "state_dict"}, true));
  probe.attach();
  probe.answer();
  probe.answer();
  const Seq seq = probe.submit("on_step_end", 0);
  probe.ask("all_gather");
  probe.stream.answered(seq, 0, {}, batch_of(4), probe.now);
  probe.lose();
  probe.attach();
  probe.answer();
  probe.answer();
  probe.ask("all_gather");
  EXPECT_EQ(probe.asked.size(), 1u) << "a retry asks the world again";
  ASSERT_EQ(probe.answers.size(), 2u);
  EXPECT_EQ(value_of(probe.answers[1].batch), 4);
  probe.answer();
  probe.stream.want(seq);

  probe.lose();  // consumed: from here on it is a replay
  probe.attach();
  probe.answer();
  probe.answer();
  ASSERT_EQ(probe.hooks_under_way().at(0), "on_step_end*");
  probe.ask("all_gather");
  EXPECT_EQ(probe.asked.size(), 1u);
  EXPECT_EQ(value_of(probe.answers.at(2).batch), 4);
}

TEST(PluginStreamAsks, AnAnswerThatComesWhileTheHostIsDeadIsThereForTheNext) {
  Probe probe(route_with({"on_step_end"}, false));
  probe.attach();
  probe.answer();
  const Seq seq = probe.submit("on_step_end", 0);
  probe.ask("all_gather");
  probe.lose();
  probe.stream.answered(seq, 0, {}, batch_of(4), probe.now);
  EXPECT_TRUE(probe.answers.empty());
  probe.attach();
  probe.answer();
  probe.ask("all_gather");
  EXPECT_EQ(probe.asked.size(), 1u);
  EXPECT_EQ(value_of(probe.answers.at(0).batch), 4);
}

TEST(PluginStreamAsks, AQuestionThatIsStillOpenAfterARestartIsNotAskedTwice) {
  Probe probe(route_with({"on_step_end"}, false));
  probe.attach();
  probe.answer();
  const Seq seq = probe.submit("on_step_end", 0);
  probe.ask("all_gather");
  probe.lose();
  probe.attach();
  probe.answer();
  probe.ask("all_gather");
  EXPECT_EQ(probe.asked.size(), 1u);
  probe.stream.answered(seq, 0, {}, batch_of(4), probe.now);
  EXPECT_EQ(probe.answers.size(), 1u);
}

TEST(PluginStreamAsks, WeightsAreRefusedWhereTheyMove) {
  for (const char* hook : {"on_backward_end", "on_substep_end", "on_optimizer_step_start"}) {
    Probe probe(route_with({hook}, false));
    probe.attach();
    probe.answer();
    probe.submit(hook, 0);
    probe.ask("weights");
    EXPECT_TRUE(probe.asked.empty()) << hook;
    ASSERT_EQ(probe.answers.size(), 1u);
    EXPECT_EQ(probe.answers[0].failure->message, std::string("weights cannot be asked for in ") + hook);
  }
}

TEST(PluginStreamAsks, AllGatherIsRefusedInTransformsAndInNodeScope) {
  Probe transform(route_with({"transform_train_batch"}, false));
  transform.attach();
  transform.answer();
  transform.submit("transform_train_batch", 0, batch_of(1));
  transform.ask("all_gather");
  EXPECT_TRUE(transform.asked.empty());
  EXPECT_TRUE(transform.answers.at(0).failure.has_value());

  PluginRoute route = route_with({"on_step_end"}, false);
  route.config.scope = "node";
  Probe node(route);
  node.attach();
  node.answer();
  node.submit("on_step_end", 0);
  node.ask("all_gather");
  EXPECT_TRUE(node.asked.empty());
  EXPECT_EQ(node.answers.at(0).failure->message, "all_gather is for the scopes rank and job, not for node");
}

TEST(PluginStreamAsks, AQuestionOutsideOfItsCallIsGarbage) {
  Probe probe(route_with({"on_step_end"}, false));
  probe.attach();
  probe.answer();
  Ask ask;
  ask.seq = Seq{9};
  ask.what = "weights";
  probe.stream.on_ask(ask, probe.now);
  ASSERT_EQ(probe.faults.size(), 1u);
  EXPECT_EQ(probe.faults[0].kind, "garbage");
}

TEST(PluginStreamAsks, SaysOfACallWhetherItIsAheadUnderWayOrOver) {
  Probe probe(route_with({"on_step_end"}, false));
  probe.attach();
  probe.answer();
  EXPECT_EQ(probe.stream.standing(1), Standing::kAhead);
  const Seq seq = probe.submit("on_step_end", 0);
  EXPECT_EQ(probe.stream.standing(1), Standing::kUnderWay);
  probe.answer();
  EXPECT_EQ(probe.stream.standing(1), Standing::kOver);
  probe.stream.want(seq);
  EXPECT_EQ(probe.stream.standing(1), Standing::kOver);
  EXPECT_EQ(probe.over.at(0), std::pair(std::int64_t{1}, false));
}

TEST(PluginStreamAsks, OwnSnapshotsDoNotCountAsPositions) {
  Probe probe(route_with({"on_step_end", "state_dict"}, true), {.journal_calls = 1});
  probe.attach();
  probe.answer();
  probe.answer();
  probe.submit("on_step_end", 0);  // and a snapshot behind it
  probe.submit("on_step_end", 1);
  EXPECT_EQ(probe.stream.standing(2), Standing::kUnderWay);
  EXPECT_EQ(probe.stream.standing(3), Standing::kAhead);
}

TEST(PluginStreamAsks, ACallThatSawTheWeightsSaysSo) {
  Probe probe(route_with({"on_step_end"}, false));
  probe.attach();
  probe.answer();
  const Seq seq = probe.submit("on_step_end", 0);
  probe.ask("weights");
  probe.stream.answered(seq, 0, {}, batch_of(1), probe.now);
  probe.answer();
  probe.stream.want(seq);
  EXPECT_TRUE(probe.settled.at(seq.value).saw_weights);
}

TEST(PluginStreamAsks, AFatalAnswerSaysWhichPluginRaisedWhat) {
  Probe probe(route_with({"on_step_end"}, false));
  probe.attach();
  probe.answer();
  const Seq seq = probe.submit("on_step_end", 0);
  Reply reply;
  reply.failure = Failure{"TrialPruned", "no use", ""};
  reply.fatal = true;
  probe.answer(reply);
  probe.stream.want(seq);
  EXPECT_TRUE(probe.settled.at(seq.value).fatal);
  EXPECT_EQ(probe.settled.at(seq.value).reason, "probe: TrialPruned: no use");
}

}  // namespace
}  // namespace bulkhead
