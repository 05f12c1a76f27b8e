#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/stream_probe.h"

namespace bulkhead {
namespace {

using Hooks = std::vector<std::string>;

TEST(PluginStream, AnExceptionIsAnAnswer) {
  Probe probe(route_with({"transform_train_batch"}, false));
  probe.attach();
  probe.answer();
  const Seq seq = probe.submit("transform_train_batch", 0, batch_of(3));
  probe.stream.want(seq);
  Reply reply;
  reply.failure = Failure{"ValueError", "no", ""};
  probe.answer(std::move(reply));
  EXPECT_EQ(probe.settled.at(seq.value).kind, Outcome::Kind::kError);
  EXPECT_EQ(value_of(probe.settled.at(seq.value).batch), 3);
  EXPECT_EQ(probe.stream.report().errors, 1);
  EXPECT_TRUE(probe.faults.empty());
}

TEST(PluginStream, RefusesAnOutputOfAnotherTypeAndTrainsOnTheInput) {
  Probe probe(route_with({"transform_train_batch"}, false));
  probe.attach();
  probe.answer();
  const Seq seq = probe.submit("transform_train_batch", 0, batch_of(3));
  probe.stream.want(seq);
  Reply reply;
  reply.batch = {{"x", DType::kInt32, {1}, Blob::of(std::string(4, '\0'))}};
  probe.answer(std::move(reply));
  EXPECT_EQ(probe.settled.at(seq.value).kind, Outcome::Kind::kError);
  EXPECT_EQ(value_of(probe.settled.at(seq.value).batch), 3);
}

Batch tensors_of(const std::vector<std::pair<const char*, std::vector<std::int64_t>>>& shapes) {
  Batch batch;
  for (const auto& [name, shape] : shapes) {
    Tensor tensor{name, DType::kInt64, shape, {}};
    tensor.bytes = Blob::of(std::string(static_cast<std::size_t>(tensor.size_bytes()), '\0'));
    batch.push_back(std::move(tensor));
  }
  return batch;
}

TEST(PluginStream, GivesWhatTheDataSetStageRepliedAndNoWeights) {
  Probe probe(route_with({"preprocess"}, false));
  probe.attach();
  probe.answer();
  const Seq seq = probe.submit("preprocess", 0, batch_of(3));
  probe.stream.want(seq);
  Reply reply;
  reply.batch = batch_of(5);
  probe.answer(std::move(reply));
  EXPECT_EQ(probe.settled.at(seq.value).kind, Outcome::Kind::kAnswer);
  EXPECT_EQ(value_of(probe.settled.at(seq.value).batch), 5);
  EXPECT_TRUE(probe.settled.at(seq.value).weights.empty());
}

TEST(PluginStream, SendsAChunkAgainAndKeepsTheOneThatKillsTwice) {
  Probe probe(route_with({"keep"}, false));
  probe.attach();
  probe.answer();
  const Seq seq = probe.submit("keep", 0, batch_of(3));
  probe.stream.want(seq);
  EXPECT_EQ(probe.lose().batch, "chunk 0");
  probe.attach();
  probe.answer();
  ASSERT_EQ(probe.hooks_under_way(), Hooks{"keep"});
  EXPECT_EQ(value_of(probe.under_way[0].batch), 3);
  EXPECT_EQ(probe.dead_letters, 0);
  probe.lose();
  EXPECT_EQ(probe.settled.at(seq.value).kind, Outcome::Kind::kPoison);
  EXPECT_EQ(probe.dead_letters, 1);
}

TEST(PluginStream, KeepsTheChunkOnWhichAPluginRaises) {
  Probe probe(route_with({"encode"}, false));
  probe.attach();
  probe.answer();
  const Seq seq = probe.submit("encode", 0, batch_of(3));
  probe.stream.want(seq);
  Reply reply;
  reply.failure = Failure{"KeyError", "text", ""};
  probe.answer(std::move(reply));
  EXPECT_EQ(probe.settled.at(seq.value).reason, "encode raised KeyError: text");
  EXPECT_EQ(probe.dead_letters, 1);
}

TEST(PluginStream, TakesFromCollateABatchOfAnyLengthAndFallsBackToTheSamples) {
  StreamOptions options;
  options.lengths_vary = true;
  Probe probe(route_with({"collate"}, false), options);
  probe.attach();
  probe.answer();
  const Batch samples =
      tensors_of({{"input_ids", {5}}, {"input_ids.ends", {2}}, {"labels", {5}}, {"labels.ends", {2}}});
  const auto outcome_of = [&](const Batch& made) {
    const Seq seq = probe.submit("collate", 0, samples);
    probe.stream.want(seq);
    Reply reply;
    reply.batch = made;
    probe.answer(std::move(reply));
    return probe.settled.at(seq.value);
  };
  for (const std::int64_t length : {3, 4}) {
    const Outcome good = outcome_of(tensors_of({{"input_ids", {2, length}}, {"labels", {2, length}}}));
    EXPECT_EQ(good.kind, Outcome::Kind::kAnswer) << good.reason;
    EXPECT_EQ(describe(good.batch), "input_ids int64[2," + std::to_string(length) + "], labels int64[2," +
                                        std::to_string(length) + "]");
  }
  for (const Batch& bad :
       {tensors_of({{"input_ids", {2, 3}}}), tensors_of({{"input_ids", {2, 3}}, {"labels", {2, 2}}}),
        tensors_of({{"input_ids", {6}}, {"labels", {6}}}),
        tensors_of({{"input_ids", {2, 3}}, {"labels", {2, 3}}, {"labels.ends", {2}}})}) {
    const Outcome refused = outcome_of(bad);
    EXPECT_EQ(refused.kind, Outcome::Kind::kError);
    EXPECT_EQ(describe(refused.batch), describe(samples));
  }
}

TEST(PluginStream, AsksForTheShapeThatAnInputOfThisShapeGaveUnlessLengthsVary) {
  for (const bool vary : {false, true}) {
    StreamOptions options;
    options.lengths_vary = vary;
    Probe probe(route_with({"transform_train_batch"}, false), options);
    probe.attach();
    probe.answer();
    for (const std::int64_t length : {3, 4}) {
      const Seq seq = probe.submit("transform_train_batch", 0, tensors_of({{"input_ids", {2, 9}}}));
      probe.stream.want(seq);
      Reply reply;
      reply.batch = tensors_of({{"input_ids", {2, length}}});
      probe.answer(std::move(reply));
      const bool good = length == 3 || vary;
      EXPECT_EQ(probe.settled.at(seq.value).kind, good ? Outcome::Kind::kAnswer : Outcome::Kind::kError);
    }
  }
}

TEST(PluginStream, CallsAHostThatMissesItsDeadlineHung) {
  PluginRoute route = route_with({"on_step_end"}, false);
  route.config.deadline_seconds = 2;
  Probe probe(std::move(route));
  probe.attach();
  probe.answer();
  probe.submit("on_step_end", 9);
  EXPECT_EQ(probe.stream.next_deadline(), probe.now + 2s);
  probe.now += 1999ms;
  probe.stream.on_tick(probe.now);
  EXPECT_TRUE(probe.faults.empty());
  probe.now += 1ms;
  probe.stream.on_tick(probe.now);
  ASSERT_EQ(probe.faults.size(), 1u);
  EXPECT_EQ(probe.faults[0].kind, "hang");
  EXPECT_EQ(probe.faults[0].hook, "on_step_end");
  EXPECT_EQ(probe.faults[0].step, 9);
  EXPECT_EQ(probe.stream.next_deadline(), TimePoint::max()) << "reported once";
}

TEST(PluginStream, CountsTheDeadlineFromWhenTheHostCanBegin) {
  PluginRoute route = route_with({"on_step_end"}, false);
  route.config.deadline_seconds = 2;
  Probe probe(std::move(route));
  probe.attach();
  probe.answer();
  probe.submit("on_step_end", 0);
  probe.submit("on_step_end", 1);
  probe.now += 1500ms;
  probe.answer();
  EXPECT_EQ(probe.stream.next_deadline(), probe.now + 2s);
}

TEST(PluginStream, WarnsOfASlowHookAndChangesNothing) {
  struct Case {
    const char* hook;
    double seconds;
    bool slow;
  };
  for (const Case& at : {Case{"on_step_end", 0.6, true}, Case{"on_step_end", 0.4, false},
                         Case{"transform_train_batch", 0.6, true}, Case{"on_epoch_end", 5.1, true},
                         Case{"on_epoch_end", 4.9, false}, Case{"on_validate_end", 5.1, true},
                         Case{"on_train_end", 20.1, true}, Case{"on_train_end", 19.9, false}}) {
    Probe probe(route_with({at.hook}, false));
    probe.attach();
    probe.answer_all();
    const bool moves = find_hook(at.hook)->moves_batch();
    probe.submit(at.hook, 3, moves ? std::optional(batch_of(1)) : std::nullopt);
    Reply reply;
    reply.seconds = at.seconds;
    if (moves) reply.kept = {"x"};
    probe.answer(reply);
    EXPECT_EQ(probe.events, at.slow ? std::vector<std::string>{"slow_hook"} : std::vector<std::string>{})
        << at.hook << " " << at.seconds;
    EXPECT_EQ(probe.stream.report().errors, 0);
  }
}

TEST(PluginStream, ProgressStartsTheDeadlineAnew) {
  PluginRoute route = route_with({"on_step_end"}, false);
  route.config.deadline_seconds = 2;
  Probe probe(std::move(route));
  probe.attach();
  probe.answer();
  const Seq seq = probe.submit("on_step_end", 0);
  probe.now += 1500ms;
  Progress progress;
  progress.seq = seq;
  probe.stream.on_progress(progress, probe.now);
  EXPECT_EQ(probe.stream.next_deadline(), probe.now + 2s);
}

TEST(PluginStream, AReplyThatNobodyWaitsForIsGarbage) {
  Probe probe(route_with({"on_step_end"}, false));
  probe.attach();
  probe.answer();
  Reply reply;
  reply.seq = Seq{77};
  reply.hook = "on_step_end";
  probe.stream.on_reply(std::move(reply), probe.now);
  ASSERT_EQ(probe.faults.size(), 1u);
  EXPECT_EQ(probe.faults[0].kind, "garbage");
}

TEST(PluginStream, GivenUpItSettlesWhatIsOpenAndWhatComes) {
  Probe probe(route_with({"transform_train_batch", "on_step_end"}, true));
  probe.attach();
  probe.answer_all();
  const Seq open = probe.submit("transform_train_batch", 0, batch_of(3));
  probe.stream.want(open);
  probe.lose(false);
  EXPECT_EQ(probe.settled.at(open.value).kind, Outcome::Kind::kGivenUp);
  EXPECT_EQ(value_of(probe.settled.at(open.value).batch), 3);
  const Seq later = probe.submit("on_step_end", 0);
  probe.stream.want(later);
  EXPECT_EQ(probe.settled.at(later.value).kind, Outcome::Kind::kGivenUp);
  EXPECT_TRUE(probe.stream.is_ready()) << "nobody waits for it any more";
}

TEST(PluginStream, SetupThatRaisesAtTheFirstStartRefusesTheRun) {
  Probe probe(route_with({"on_step_end"}, false));
  probe.attach();
  Reply reply;
  reply.failure = Failure{"KeyError", "path", "Traceback …"};
  probe.answer(std::move(reply));
  ASSERT_EQ(probe.faults.size(), 1u);
  EXPECT_EQ(probe.faults[0].kind, "refused");
}

TEST(PluginStream, AHostThatLivedOnIsLoadedWithoutSetup) {
  Probe probe(route_with({"on_step_end"}, true));
  probe.stream.restore(Blob::of(std::string("from the checkpoint")));
  probe.attach(true);
  ASSERT_EQ(probe.hooks_under_way(), Hooks{"load_state_dict"});
  EXPECT_EQ(probe.under_way[0].state.text(), "from the checkpoint");
}

TEST(PluginStream, AnObserverIsNeverWaitedForAndDropsWhatOverflows) {
  PluginRoute route = route_with({"on_step_end"}, true);
  route.traits.steers = false;
  Probe probe(std::move(route), {.credits = 1, .observer_queue = 3});
  probe.attach();
  probe.answer();
  for (int step = 0; step < 10; ++step) probe.submit("on_step_end", step);
  EXPECT_EQ(probe.stream.report().events_dropped, 7);
  probe.answer();
  probe.lose();
  EXPECT_EQ(probe.stream.report().events_dropped, 9) << "what a dead observer had not answered is lost";
  EXPECT_TRUE(probe.settled.empty());
}

}  // namespace
}  // namespace bulkhead
