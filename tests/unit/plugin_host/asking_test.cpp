// What a plugin asks of its rank and of the run inside a call.
#include <cstring>

#include <gtest/gtest.h>

#include "call_rules.h"
#include "protocol/codec.h"
#include "protocol/hooks.h"
#include "support/loaded_plugin.h"

namespace bulkhead {
namespace {

Tensor bytes_named(const std::string& name, const std::string& bytes) {
  return {name, DType::kUInt8, {static_cast<std::int64_t>(bytes.size())}, Blob::of(bytes)};
}

Tensor floats_named(const std::string& name, const std::vector<float>& values) {
  std::string bytes(values.size() * sizeof(float), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return {name, DType::kFloat32, {static_cast<std::int64_t>(values.size())}, Blob::of(bytes)};
}

std::vector<float> floats_of(const Tensor& tensor) {
  std::vector<float> values(tensor.bytes.size / sizeof(float));
  std::memcpy(values.data(), tensor.bytes.data, tensor.bytes.size);
  return values;
}

Answer answer_with(const Batch& batch) {
  Answer answer;
  answer.batch = batch;
  return answer;
}

Answer parameters(const Ask&) {
  return answer_with({floats_named("scale", {3}), floats_named("bias", {1, 2})});
}

// ----- all_gather -----

TEST(AllGather, GivesThePartsInRankOrderAndNumbersItsQuestions) {
  LoadedPlugin plugin(load_of("asker"));
  plugin.answer = [](const Ask& ask) {
    return answer_with({bytes_named("1", "one"), bytes_named("0", "zero" + std::to_string(ask.number))});
  };
  EXPECT_FALSE(plugin.run("on_epoch_start").failure);
  EXPECT_EQ(plugin.logged(), "zero0;one;\nzero1;one;\n");
  ASSERT_EQ(plugin.asked.size(), 2u);
  EXPECT_EQ(plugin.asked[0].what, "all_gather");
  EXPECT_EQ(plugin.asked[0].seq, Seq{9});
  EXPECT_EQ(plugin.asked[0].generation, LoadedPlugin::kOwn);
  EXPECT_EQ(describe(plugin.asked[0].batch), "value uint8[5]");
  EXPECT_EQ(plugin.asked[1].batch[0].bytes.text(), "second");
  EXPECT_TRUE(decode(encode(plugin.asked[1])).ok());
  plugin.run("on_epoch_start");
  EXPECT_EQ(plugin.asked[2].number, 0);  // of the next call
}

TEST(AllGather, HasNothingOfARankThatGaveThePluginUp) {
  LoadedPlugin plugin(load_of("asker"));
  plugin.answer = [](const Ask&) { return answer_with({bytes_named("1", "")}); };
  plugin.run("on_epoch_start");
  EXPECT_EQ(plugin.logged(), "nobody;;\nnobody;;\n");
}

TEST(AllGather, RaisesAFailureWhereThePluginAsked) {
  LoadedPlugin plugin(load_of("asker"));
  plugin.answer = [](const Ask&) {
    Answer answer;
    answer.failure = Failure{"AskFailed", "rank 0 returned without asking", ""};
    return answer;
  };
  const Reply caught = plugin.run("on_step_end");
  EXPECT_FALSE(caught.failure);
  EXPECT_TRUE(caught.control.save);
  EXPECT_EQ(plugin.logged(), "failed: rank 0 returned without asking\n");
  const Reply uncaught = plugin.run("on_epoch_start");
  ASSERT_TRUE(uncaught.failure);
  EXPECT_EQ(uncaught.failure->message, "rank 0 returned without asking");
  EXPECT_NE(uncaught.failure->type.find("AskFailed"), std::string::npos) << uncaught.failure->type;
}

TEST(AllGather, RefusesAnAnswerThatNamesNoRank) {
  LoadedPlugin plugin(load_of("asker"));
  for (const char* name : {"2", "-1", "x", ""}) {
    plugin.answer = [&](const Ask&) { return answer_with({bytes_named(name, "x")}); };
    EXPECT_TRUE(plugin.run("on_epoch_start").failure) << name;
  }
}

TEST(AllGather, IsAloneInJobScope) {
  Load load = load_of("asker");
  load.facts.scope = "job";
  LoadedPlugin plugin(load);
  EXPECT_FALSE(plugin.run("on_epoch_start").failure);
  EXPECT_EQ(plugin.logged(), "first;\nsecond;\n");
  EXPECT_TRUE(plugin.asked.empty());
}

TEST(AllGather, IsRefusedWhereTheRanksDoNotCallTogether) {
  LoadedPlugin plugin(load_of("asker"));
  const Reply transform = plugin.run("transform_train_batch");
  ASSERT_TRUE(transform.failure);
  EXPECT_EQ(transform.failure->type, "std::logic_error");
  EXPECT_EQ(transform.failure->message,
            "ctx.all_gather is not for transform_train_batch, which the ranks do not call together; ask in a "
            "step or "
            "epoch hook");
  Call failing;
  failing.hook = "on_exception";
  failing.context.exception = "guard: Diverged: too high";
  EXPECT_TRUE(plugin.run(failing).failure);
  EXPECT_EQ(plugin.logged(), "guard: Diverged: too high\n");
  Load node = load_of("asker");
  node.facts.scope = "node";
  EXPECT_EQ(LoadedPlugin(node).run("on_epoch_start").failure->message,
            "ctx.all_gather is not for scope node, where one process answers for several ranks; use scope "
            "rank or job");
  EXPECT_EQ(LoadedPlugin(load_of("shared")).run("on_epoch_end").failure->message,
            "ctx.all_gather is not for a plugin with steers = false: nothing waits for it");
  EXPECT_TRUE(plugin.asked.empty());
}

TEST(AllGather, LeavesACallThatNobodyWaitsForWithoutAWord) {
  LoadedPlugin plugin(load_of("asker"));
  EXPECT_FALSE(plugin.run("on_log").failure);  // its catch of std::exception sees nothing
  EXPECT_TRUE(plugin.sent.empty());
}

// ----- weights -----

TEST(Weights, AreAskedForOnceAndGivenBackWhereTheyWereWrittenTo) {
  LoadedPlugin plugin(load_of("asker"));
  plugin.answer = parameters;
  const Reply reply = plugin.run("on_train_start");
  ASSERT_FALSE(reply.failure) << reply.failure->message;
  ASSERT_EQ(plugin.asked.size(), 1u);
  EXPECT_EQ(plugin.asked[0].what, "weights");
  EXPECT_TRUE(plugin.asked[0].batch.empty());
  EXPECT_EQ(plugin.logged(), "3.000000\n");
  EXPECT_EQ(describe(reply.batch), "bias float32[2]");
  EXPECT_EQ(floats_of(reply.batch[0]), (std::vector<float>{2, 3}));
  EXPECT_TRUE(reply.kept.empty());
}

TEST(Weights, CanBeGivenWithoutHavingBeenAskedFor) {
  LoadedPlugin plugin(load_of("asker"));
  const Reply reply = plugin.run("on_validate_end", 0);
  ASSERT_FALSE(reply.failure) << reply.failure->message;
  EXPECT_EQ(floats_of(reply.batch.at(0)), (std::vector<float>{0, 5}));
  EXPECT_TRUE(plugin.asked.empty());
}

TEST(Weights, MustBeParametersOfTheModelWithTheirTypeAndShape) {
  LoadedPlugin plugin(load_of("asker"));
  plugin.answer = parameters;
  const Reply unknown = plugin.run("on_validate_end", 1);
  EXPECT_EQ(unknown.failure->message, "ctx.load_weights: the model has no \"bais\"");
  EXPECT_EQ(unknown.failure->type, "std::invalid_argument");
  const Reply other = plugin.run("on_validate_end", 2);
  EXPECT_EQ(other.failure->message, "ctx.load_weights: \"bias\" must be float32 [2], not float64 [3]");
  EXPECT_TRUE(other.batch.empty());
}

TEST(Weights, AreRefusedWhereParametersChangeOrNobodyWaits) {
  LoadedPlugin plugin(load_of("asker"));
  plugin.answer = parameters;
  EXPECT_TRUE(plugin.run("on_backward_end")
                  .failure->message.starts_with("ctx.weights is not for on_backward_end, during which "
                                                "parameters change; ask in on_step_start, "));
  EXPECT_TRUE(plugin.run("on_step_start")
                  .failure->message.starts_with("ctx.load_weights is not for on_step_start, which the ranks "
                                                "do not wait for; give weights in on_train_start, "));
  EXPECT_EQ(LoadedPlugin(load_of("shared")).run("on_train_end").failure->message,
            "ctx.load_weights is not for a plugin with steers = false: its replies are not read");
}

// The table's hooks and the specification's three lists, spelled out.
TEST(CallRules, AllowWhatTheSpecificationAllows) {
  for (const HookInfo& hook : all_hooks()) {
    const bool notify = hook.kind == HookKind::kNotify;
    const bool waited = notify && hook.pace == HookPace::kWaited;
    const bool still = hook.name == "on_step_start" || hook.name == "on_optimizer_step_end" ||
                       hook.name == "on_step_end" || hook.name == "should_stop" || hook.name == "on_log";
    const bool together = notify && hook.pace != HookPace::kStart && hook.name != "on_exception";
    EXPECT_EQ(objection_to("all_gather", hook.name, "rank", true).empty(), together) << hook.name;
    EXPECT_EQ(objection_to("weights", hook.name, "rank", true).empty(), waited || still) << hook.name;
    EXPECT_EQ(objection_to("load_weights", hook.name, "rank", true).empty(), waited) << hook.name;
    EXPECT_FALSE(objection_to("all_gather", hook.name, "node", true).empty()) << hook.name;
    for (const char* what : {"all_gather", "weights", "load_weights"}) {
      EXPECT_FALSE(objection_to(what, hook.name, "rank", false).empty()) << hook.name;
    }
  }
}

// ----- Settings -----

TEST(Settings, TravelWithControlTheLastOfEachName) {
  LoadedPlugin plugin(load_of("raiser"));
  const Reply reply = plugin.run("on_log");
  ASSERT_FALSE(reply.failure) << reply.failure->message;
  EXPECT_TRUE(reply.control.log);
  ASSERT_EQ(reply.control.settings.size(), 3u);
  EXPECT_EQ(reply.control.settings[0], (Setting{"grad_accum", 4.0, 0, 0}));
  EXPECT_EQ(reply.control.settings[1], (Setting{"validate_every", 0.0, 0, 0}));
  EXPECT_EQ(reply.control.settings[2], (Setting{"lr", std::nullopt, 0, 0}));
}

TEST(Settings, RefuseOtherNamesAndSenselessValues) {
  LoadedPlugin plugin(load_of("raiser"));
  const Reply reply = plugin.run("on_optimizer_step_end");
  EXPECT_TRUE(reply.control.settings.empty());
  const std::string settable = "settable are grad_accum, log_every, lr, save_every, validate_every";
  EXPECT_EQ(plugin.logged(),
            "ctx.set: \"seed\" cannot be set; " + settable + "\n" + "ctx.set: \"grad_acum\" cannot be set; " +
                settable + "; did you mean \"grad_accum\"?\n" +
                "ctx.set: grad_accum must be a whole number of 1 or more, not 0\n"
                "ctx.set: grad_accum must be a whole number of 1 or more, not 1.5\n"
                "ctx.set: grad_accum must be a whole number of 1 or more, not nothing\n"
                "ctx.set: save_every must be a whole number of 0 or more, not -1\n"
                "ctx.set: lr must be a finite number of 0 or more, or std::nullopt, not -0.1\n"
                "ctx.set: lr must be a finite number of 0 or more, or std::nullopt, not inf\n"
                "ctx.set: log_every must be a whole number of 0 or more, not nothing\n");
}

// ----- Fatal answers -----

TEST(Raises, AreFatalWithWhatDerivesFromThemAndNothingElseIs) {
  LoadedPlugin plugin(load_of("raiser"));
  const Reply itself = plugin.run("on_step_start");
  EXPECT_TRUE(itself.fatal);
  EXPECT_EQ(itself.failure->type, "tests::Diverged");
  const Reply derived = plugin.run("on_step_end");
  EXPECT_TRUE(derived.fatal);
  EXPECT_EQ(derived.failure->type, "tests::Exploded");
  EXPECT_EQ(derived.failure->message, "it is infinite");
  EXPECT_TRUE(plugin.run("should_stop").fatal);
  EXPECT_TRUE(plugin.run("transform_train_batch").fatal);
  EXPECT_TRUE(plugin.run("setup").fatal);
  const Reply ordinary = plugin.run("on_epoch_start");
  EXPECT_FALSE(ordinary.fatal);
  EXPECT_TRUE(ordinary.failure);
  EXPECT_FALSE(plugin.run("on_log").fatal);
}

// ----- Shared processes -----

TEST(SharedProcess, HearsWhoseCallItIs) {
  LoadedPlugin plugin(load_of("shared"));
  Call call;
  call.hook = "on_step_end";
  plugin.run(call);
  call.context.rank = 0;
  call.context.local_rank = 3;
  call.context.device = "cuda:3";
  plugin.run(call);
  plugin.run("on_step_end");
  EXPECT_EQ(plugin.logged(), "1 0 cpu cpu\n0 3 cuda:3 cuda:3 main\n1 0 cpu cpu\n");
}

}  // namespace
}  // namespace bulkhead
