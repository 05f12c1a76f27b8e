#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/stream_probe.h"

namespace bulkhead {
namespace {

using Hooks = std::vector<std::string>;

TEST(PluginStream, OpensAStatefulPluginWithSetupAndItsFirstSnapshot) {
  Probe probe(route_with({"on_step_end"}, true));
  probe.attach();
  EXPECT_EQ(probe.hooks_under_way(), Hooks{"setup"});
  probe.answer();
  EXPECT_EQ(probe.hooks_under_way(), Hooks{"state_dict"});
  EXPECT_EQ(probe.ready, 0);
  probe.answer();
  EXPECT_EQ(probe.ready, 1);
}

TEST(PluginStream, SendsCallsInTheOrderOfSubmissionAndNoMoreThanItsCredits) {
  Probe probe(route_with({"on_step_end"}, false), {.credits = 3});
  probe.attach();
  probe.answer();
  for (int step = 0; step < 5; ++step) probe.submit("on_step_end", step);
  ASSERT_EQ(probe.under_way.size(), 3u);
  probe.answer();
  ASSERT_EQ(probe.under_way.size(), 3u);
  EXPECT_EQ(probe.under_way.back().context.global_step, 3);
}

TEST(PluginStream, SettlesACallOnlyWhenSomebodyWantsIt) {
  Probe probe(route_with({"transform_train_batch"}, false));
  probe.attach();
  probe.answer();
  const Seq seq = probe.submit("transform_train_batch", 0, batch_of(3));
  probe.answer_doubled();
  EXPECT_TRUE(probe.settled.empty());
  probe.stream.want(seq);
  EXPECT_EQ(value_of(probe.settled.at(seq.value).batch), 6);
}

TEST(PluginStream, MakesAnOutputThatNobodyTookAgainAfterADeath) {
  Probe probe(route_with({"transform_train_batch"}, false));
  probe.attach();
  probe.answer();
  const Seq seq = probe.submit("transform_train_batch", 0, batch_of(3));
  probe.answer_doubled();
  probe.lose();
  probe.attach();
  probe.answer();  // setup
  EXPECT_EQ(probe.hooks_under_way(), Hooks{"transform_train_batch"});
  EXPECT_EQ(probe.stream.report().retries, 1);
  probe.stream.want(seq);
  probe.answer_doubled();
  EXPECT_EQ(value_of(probe.settled.at(seq.value).batch), 6);
}

TEST(PluginStream, ReplaysTheJournalOfAStatefulPluginAndThenSendsWhatWasUnderWay) {
  Probe probe(route_with({"on_step_end"}, true));
  probe.attach();
  probe.answer_all();
  for (int step = 0; step < 3; ++step) probe.stream.want(probe.submit("on_step_end", step));
  probe.answer();
  probe.answer();
  const HostPost post = probe.lose();
  EXPECT_EQ(post.hook, "on_step_end");
  EXPECT_EQ(post.step, 2);
  probe.attach();
  EXPECT_EQ(probe.hooks_under_way(), Hooks{"setup"});
  probe.answer();
  ASSERT_EQ(probe.hooks_under_way(), Hooks{"load_state_dict"});
  EXPECT_EQ(probe.under_way[0].state.text(), "state-1");
  probe.answer();
  EXPECT_EQ(probe.hooks_under_way(), (Hooks{"on_step_end*", "on_step_end*"}));
  EXPECT_EQ(probe.ready, 1) << "not ready again before the replay is done";
  probe.answer();
  probe.answer();
  EXPECT_EQ(probe.hooks_under_way(), Hooks{"on_step_end"}) << "alone: it may be what killed the host";
  probe.answer_all();
  EXPECT_EQ(probe.ready, 2);
  EXPECT_EQ(probe.settled.size(), 3u);
}

TEST(PluginStream, KeepsTheNumberAndTheBytesOfACallThatIsSentAgain) {
  Probe probe(route_with({"transform_train_batch"}, true));
  probe.attach();
  probe.answer_all();
  const Seq seq = probe.submit("transform_train_batch", 4, batch_of(7));
  probe.lose();
  probe.attach();
  probe.answer();
  probe.answer();
  ASSERT_EQ(probe.under_way.size(), 1u);
  EXPECT_EQ(probe.under_way[0].seq, seq);
  EXPECT_EQ(value_of(probe.under_way[0].batch), 7);
}

TEST(PluginStream, BuriesAnInputThatKilledItsHostTwice) {
  Probe probe(route_with({"transform_train_batch"}, true));
  probe.attach();
  probe.answer_all();
  const Seq seq = probe.submit("transform_train_batch", 0, batch_of(3));
  const Seq next = probe.submit("transform_train_batch", 1, batch_of(4));
  probe.stream.want(seq);
  probe.stream.want(next);
  for (int death = 0; death < 2; ++death) {
    probe.lose();
    probe.attach();
    probe.answer();
    probe.answer();
  }
  ASSERT_TRUE(probe.settled.contains(seq.value));
  EXPECT_EQ(probe.settled.at(seq.value).kind, Outcome::Kind::kPoison);
  EXPECT_EQ(value_of(probe.settled.at(seq.value).batch), 3) << "identity";
  EXPECT_EQ(probe.dead_letters, 1);
  ASSERT_EQ(probe.under_way.size(), 1u) << "the poison is not sent again, not even as a replay";
  EXPECT_EQ(probe.under_way[0].seq, next);
  probe.answer_doubled();
  EXPECT_EQ(value_of(probe.settled.at(next.value).batch), 8);
}

TEST(PluginStream, ChargesOnlyTheOldestCallUnderWay) {
  Probe probe(route_with({"transform_train_batch"}, false));
  probe.attach();
  probe.answer();
  const Seq first = probe.submit("transform_train_batch", 0, batch_of(1));
  const Seq second = probe.submit("transform_train_batch", 1, batch_of(2));
  probe.stream.want(first);
  probe.stream.want(second);
  probe.lose();  // charges first
  probe.attach();
  probe.answer();
  probe.answer_doubled();  // first survives this time
  probe.lose();            // charges second, once
  probe.attach();
  probe.answer();
  probe.answer_doubled();
  EXPECT_EQ(probe.settled.at(second.value).kind, Outcome::Kind::kAnswer);
}

TEST(PluginStream, ChargesTheCallThatTheHostSaysItBegan) {
  Probe probe(route_with({"transform_train_batch"}, false));
  probe.attach();
  probe.answer();
  const Seq first = probe.submit("transform_train_batch", 0, batch_of(1));
  const Seq second = probe.submit("transform_train_batch", 1, batch_of(2));
  probe.stream.want(first);
  probe.stream.want(second);
  probe.under_way.clear();
  // The reply to the first was lost with the process.
  const HostPost post = probe.stream.host_lost(true, "SIGSEGV", second);
  EXPECT_EQ(post.step, 1);
}

TEST(PluginStream, ChargesTheCallThatTheHostSaysItBeganLast) {
  Probe probe(route_with({"on_step_end"}, false));
  probe.attach();
  probe.answer();
  probe.submit("on_step_end", 3);
  const Seq second = probe.submit("on_step_end", 4);
  const Seq third = probe.submit("on_step_end", 5);
  EXPECT_EQ(probe.lose(true, second).step, 4) << "the reply to step 3 was lost with the host";
  probe.attach();
  probe.answer();
  EXPECT_EQ(probe.lose(true, Seq{third.value + 1}).hook, "") << "it was between two calls";
}

TEST(PluginStream, SendsOneCallAtATimeAfterADeath) {
  Probe probe(route_with({"transform_train_batch"}, true));
  probe.attach();
  probe.answer_all();
  const Seq taken = probe.submit("transform_train_batch", 0, batch_of(1));
  probe.stream.want(taken);
  probe.answer_doubled();
  probe.submit("transform_train_batch", 1, batch_of(2));
  probe.submit("transform_train_batch", 2, batch_of(3));
  probe.lose();
  probe.attach();
  probe.answer();
  probe.answer();
  EXPECT_EQ(probe.hooks_under_way(), Hooks{"transform_train_batch*"});
  probe.answer_doubled();
  EXPECT_EQ(probe.hooks_under_way(), Hooks{"transform_train_batch"});
  probe.answer_doubled();
  EXPECT_EQ(probe.hooks_under_way(), Hooks{"transform_train_batch"});
}

TEST(PluginStream, GivenUpItKeepsTheRepliesThatNobodyHasTakenYet) {
  PluginRoute route = route_with({"transform_train_batch"}, false);
  route.config.on_failure.restarts = 0;
  Probe probe(std::move(route));
  probe.attach();
  probe.answer();
  const Seq replied = probe.submit("transform_train_batch", 0, batch_of(1));
  const Seq open = probe.submit("transform_train_batch", 1, batch_of(2));
  ASSERT_EQ(probe.under_way.size(), 1u) << "the first death is the last: one at a time";
  probe.answer_doubled();
  probe.lose(false);
  probe.stream.want(replied);
  probe.stream.want(open);
  EXPECT_EQ(value_of(probe.settled.at(replied.value).batch), 2) << "when it is taken is a matter of timing";
  EXPECT_EQ(probe.settled.at(open.value).kind, Outcome::Kind::kGivenUp);
}

TEST(PluginStream, ASnapshotAcceptsEveryReplyBeforeIt) {
  Probe probe(route_with({"transform_train_batch", "state_dict"}, true));
  probe.attach();
  probe.answer_all();
  const Seq batch = probe.submit("transform_train_batch", 0, batch_of(5));
  const Seq snapshot = probe.submit("state_dict", 0);
  probe.stream.want(snapshot);
  probe.answer_doubled();
  probe.answer();
  EXPECT_EQ(probe.settled.at(snapshot.value).state->text(), "state-2");
  probe.lose();
  probe.attach();
  probe.answer();
  EXPECT_EQ(probe.under_way[0].state.text(), "state-2");
  probe.answer();
  EXPECT_TRUE(probe.under_way.empty()) << "nothing to replay, nothing to make again";
  probe.stream.want(batch);
  EXPECT_EQ(value_of(probe.settled.at(batch.value).batch), 10);
}

TEST(PluginStream, BoundsTheJournalByASnapshotAtAPlaceThatDependsOnTheCallsAlone) {
  Probe probe(route_with({"on_step_end"}, true), {.credits = 100, .journal_calls = 4});
  probe.attach();
  probe.answer_all();
  for (int step = 0; step < 8; ++step) probe.stream.want(probe.submit("on_step_end", step));
  EXPECT_EQ(probe.hooks_under_way(),
            (Hooks{"on_step_end", "on_step_end", "on_step_end", "on_step_end", "state_dict", "on_step_end",
                   "on_step_end", "on_step_end", "on_step_end", "state_dict"}));
}

TEST(PluginStream, WaitsAtATransformWhoseInputIsStillBeingMade) {
  Probe probe(route_with({"transform_train_batch", "on_step_end"}, false));
  probe.attach();
  probe.answer();
  const Seq batch = probe.submit("transform_train_batch", 0);
  probe.submit("on_step_end", 0);
  EXPECT_TRUE(probe.under_way.empty()) << "a late input delays the stream, it never reorders it";
  probe.stream.supply(batch, batch_of(1), probe.now);
  EXPECT_EQ(probe.hooks_under_way(), (Hooks{"transform_train_batch", "on_step_end"}));
}

TEST(PluginStream, SendsNoMoreThanItsCreditsAndAlwaysOneCall) {
  StreamOptions options;
  options.credits = 3;
  options.credit_bytes = 8;  // two of these inputs
  Probe probe(route_with({"transform_train_batch", "on_step_end"}, false), options);
  probe.attach();
  probe.answer_all();
  for (int step = 0; step < 4; ++step) probe.submit("transform_train_batch", step, batch_of(1));
  EXPECT_EQ(probe.under_way.size(), 2U);
  probe.answer_doubled();
  EXPECT_EQ(probe.under_way.size(), 2U);
  probe.answer_all();
  for (int step = 0; step < 5; ++step) probe.submit("on_step_end", step);
  EXPECT_EQ(probe.under_way.size(), 3U);
  probe.answer_all();
  Batch large = batch_of(1);
  large[0].bytes = Blob::of(std::string(12, '\0'));
  large[0].shape = {3};
  probe.submit("transform_train_batch", 9, large);
  EXPECT_EQ(probe.under_way.size(), 1U) << "one may always go";
}

}  // namespace
}  // namespace bulkhead
