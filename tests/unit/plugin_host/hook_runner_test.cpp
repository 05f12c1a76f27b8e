#include "hook_runner.h"

#include <cstring>
#include <sstream>

#include <gtest/gtest.h>

#include "clean_text.h"
#include "protocol/codec.h"
#include "protocol/rng.h"
#include "support/loaded_plugin.h"

namespace bulkhead {
namespace {

const std::string kPlugins = BULKHEAD_BUILD_DIR "/tests/plugins/";
constexpr Generation kOwn = LoadedPlugin::kOwn;

LoadFailed failure_of(const Load& load) {
  const auto loading = HookRunner::load(load, kOwn);
  const auto* failed = std::get_if<LoadFailed>(&loading);
  return failed != nullptr ? *failed : LoadFailed{};
}

std::string sentence_of(const Value& with) {
  return failure_of(load_of("options_probe", with)).failure.message;
}

template <class T>
Tensor tensor_of(const std::string& name, DType dtype, std::vector<std::int64_t> shape,
                 const std::vector<T>& values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return {name, dtype, std::move(shape), Blob::of(bytes)};
}

Call transform_call(std::int64_t step) {
  Call call;
  call.hook = "transform_train_batch";
  call.seq = Seq{4};
  call.context.global_step = step;
  call.batch = {tensor_of<std::int64_t>("input_ids", DType::kInt64, {1, 2}, {5, 6}),
                tensor_of<std::int64_t>("labels", DType::kInt64, {1, 2}, {6, 7}),
                tensor_of<float>("extra", DType::kFloat32, {1}, {1.0f})};
  return call;
}

TEST(HookRunner, FindsOutWhatThePluginIs) {
  LoadedPlugin loaded(load_of("echo"));
  const PluginTraits& traits = loaded.runner().traits();
  EXPECT_EQ(traits.hooks, (std::vector<std::string>{"on_train_start", "on_train_end", "on_epoch_start",
                                                    "on_step_end", "should_stop", "transform_train_batch",
                                                    "state_dict", "load_state_dict"}));
  EXPECT_EQ(traits.claims, std::vector<std::string>{"should_stop"});
  EXPECT_EQ(traits.class_name, "Echo");
  EXPECT_TRUE(traits.steers && traits.seeded && traits.stateful);
  EXPECT_FALSE(traits.stateless);
  EXPECT_TRUE(traits.language.starts_with("c++ ")) << traits.language;
}

TEST(HookRunner, CountsAPluginWithoutStateDictAsStateless) {
  LoadedPlugin loaded(load_of("no_arguments"));
  const PluginTraits& traits = loaded.runner().traits();
  EXPECT_EQ(traits.hooks, std::vector<std::string>{"on_step_end"});
  EXPECT_TRUE(traits.stateless);
  EXPECT_FALSE(traits.stateful || traits.steers || traits.seeded);
  const Reply reply = loaded.run("state_dict");
  EXPECT_FALSE(reply.failure || reply.has_state);
}

TEST(HookRunner, SeedsTheCallsGeneratorAsTheProtocolSays) {
  LoadedPlugin loaded(load_of("echo"));
  Call call;
  call.hook = "on_step_end";
  call.seed_rank = 3;
  call.context.global_step = 11;
  loaded.run(call);
  Philox rng(call_key(42, "mine", 3, "on_step_end", 11, 0));
  const std::string first = std::to_string(rng.next());
  const std::string second = std::to_string(rng.next());
  const std::string third = std::to_string(rng.uniform());
  EXPECT_EQ(loaded.run("state_dict").state.text(), first + " " + second + " " + third);
  loaded.run(call);  // sent again: the same numbers
  EXPECT_TRUE(loaded.run("state_dict").state.text().starts_with(first));
}

TEST(HookRunner, RepliesToANotifyHookWithItsControl) {
  LoadedPlugin loaded(load_of("echo"));
  const Reply reply = loaded.run("on_step_end", 5);
  EXPECT_EQ(reply.generation, kOwn);
  EXPECT_EQ(reply.seq, Seq{9});
  EXPECT_EQ(reply.hook, "on_step_end");
  EXPECT_FALSE(reply.failure);
  EXPECT_TRUE(reply.control.save && reply.control.log);
  EXPECT_FALSE(reply.control.stop || reply.control.stop_epoch || reply.control.validate);
  EXPECT_GE(reply.seconds, 0);
}

TEST(HookRunner, TellsTheHookEveryFactAndSendsNotesAtOnce) {
  LoadedPlugin loaded(load_of("echo"));
  Call call;
  call.hook = "on_epoch_start";
  call.seq = Seq{3};
  call.context.global_step = 8;
  call.context.metrics = {{"loss", 2.0}};
  call.context.best_metric = 1.0;
  call.context.call_id = "c-3";
  call.context.replaying = true;
  const Reply reply = loaded.run(call);
  EXPECT_TRUE(reply.control.stop);
  EXPECT_EQ(reply.control.reason, "first");
  ASSERT_EQ(loaded.sent.size(), 3u);
  EXPECT_EQ(std::get<Note>(loaded.sent[0]).text,
            "rank 1 of 2 on cpu step 8 loss 2.000000 best 1.000000 map cpu generation 7 run /runs/x call c-3 "
            "replaying");
  EXPECT_EQ(std::get<Note>(loaded.sent[0]).generation, kOwn);
  EXPECT_EQ(std::get<Note>(loaded.sent[1]).metrics, (std::map<std::string, double>{{"seen", 1.5}}));
  EXPECT_EQ(std::get<Progress>(loaded.sent[2]).seq, Seq{3});
  EXPECT_EQ(std::get<Progress>(loaded.sent[2]).detail["done"], 0.25);
}

TEST(HookRunner, MakesShouldStopAStopWithAReason) {
  LoadedPlugin loaded(load_of("echo"));
  EXPECT_FALSE(loaded.run("should_stop", 0).control.any());
  EXPECT_EQ(loaded.run("should_stop", 1).control.reason, "mine said should_stop");
  EXPECT_TRUE(loaded.run("should_stop", 1).control.stop);
  EXPECT_EQ(loaded.run("should_stop", 2).control.reason, "my own reason");
}

TEST(HookRunner, RepliesToATransformWithWhatChangedAndWhatWasKept) {
  LoadedPlugin loaded(load_of("echo"));
  const Call call = transform_call(0);
  const Reply reply = loaded.run(call);
  ASSERT_FALSE(reply.failure) << reply.failure->message;
  EXPECT_EQ(reply.kept, std::vector<std::string>{"extra"});
  EXPECT_EQ(describe(reply.batch), "input_ids int64[1,2], weight float32[2]");
  std::int64_t ids[2];
  std::memcpy(ids, reply.batch[0].bytes.data, sizeof ids);
  EXPECT_EQ(ids[0], 6);
  EXPECT_EQ(ids[1], 7);
  EXPECT_EQ(call.batch[0].bytes.text()[0], 5);  // the input is whole
  EXPECT_TRUE(decode(encode(reply)).ok());
}

TEST(HookRunner, MakesAnExceptionAnAnswerAndLivesOn) {
  LoadedPlugin loaded(load_of("echo"));
  const Reply reply = loaded.run("on_train_start");
  ASSERT_TRUE(reply.failure);
  EXPECT_EQ(reply.failure->type, "tests::Sorry");
  EXPECT_EQ(reply.failure->message, "no \xef\xbf\xbd training");
  EXPECT_EQ(loaded.run("on_train_end").failure->type, "int");
  EXPECT_FALSE(loaded.run("on_step_end").failure);
}

TEST(HookRunner, RepliesToAFailedTransformWithNothingElse) {
  LoadedPlugin loaded(load_of("echo"));
  const Reply wrong_type = loaded.run(transform_call(1));
  ASSERT_TRUE(wrong_type.failure);
  EXPECT_EQ(wrong_type.failure->type, "std::invalid_argument");
  EXPECT_EQ(wrong_type.failure->message, "\"input_ids\" holds int64, not float32");
  const Reply too_deep = loaded.run(transform_call(2));
  ASSERT_TRUE(too_deep.failure);
  EXPECT_EQ(too_deep.failure->message, "\"deep\" has 9 dimensions; at most 8 are carried");
  EXPECT_TRUE(too_deep.batch.empty() && too_deep.kept.empty());
}

TEST(HookRunner, CarriesStateOutAndIn) {
  LoadedPlugin loaded(load_of("echo"));
  Call call;
  call.hook = "load_state_dict";
  call.state = Blob::of(std::string("a\0b", 3));
  EXPECT_FALSE(loaded.run(call).failure);
  const Reply reply = loaded.run("state_dict");
  EXPECT_TRUE(reply.has_state);
  EXPECT_EQ(reply.state.text(), std::string_view("loaded a\0b", 10));
}

TEST(HookRunner, AnswersAHookThatDoesNotExist) {
  LoadedPlugin loaded(load_of("echo"));
  EXPECT_EQ(loaded.run("on_moon_rise").failure->message, "there is no hook on_moon_rise");
}

TEST(HookRunner, GivesTheConstructorItsArgumentsFactsAndSeed) {
  LoadedPlugin loaded(load_of("options_probe", {{"path", "p"},
                                                {"patience", 5},
                                                {"rate", 2},
                                                {"loud", true},
                                                {"steps", {1, 2}},
                                                {"weights", {{"a", 1}}}}));
  Philox rng(call_key(42, "mine", 1, "__init__", 0, 0));
  EXPECT_EQ(loaded.run("state_dict").state.text(),
            "p 5 2.000000 loud 1 2 a1 1 " + std::to_string(rng.next()));
}

TEST(HookRunner, TakesASingleValueForAList) {
  LoadedPlugin loaded(load_of("options_probe", {{"path", "p"}, {"steps", 4}}));
  EXPECT_TRUE(loaded.run("state_dict").state.text().starts_with("p 3 0.500000 4 1 "));
}

TEST(HookRunner, RefusesArgumentsWithOneSentence) {
  EXPECT_EQ(sentence_of({{"path", "p"}, {"patiense", 5}}),
            "with.patiense is not an argument (known: path, patience, rate, loud, steps, weights, small); "
            "did you mean "
            "\"patience\"?");
  EXPECT_EQ(sentence_of({{"pth", "p"}}), "with.path is required; did you mean \"pth\"?");
  EXPECT_EQ(sentence_of(Value::object()), "with.path is required");
  EXPECT_EQ(sentence_of({{"path", 3}}), "with.path must be a text, not 3");
  EXPECT_EQ(sentence_of({{"path", "p"}, {"patience", 2.5}}), "with.patience must be an integer, not 2.5");
  EXPECT_EQ(sentence_of({{"path", "p"}, {"patience", nullptr}}),
            "with.patience must be an integer, not null");
  EXPECT_EQ(sentence_of({{"path", "p"}, {"rate", "high"}}), "with.rate must be a number, not \"high\"");
  EXPECT_EQ(sentence_of({{"path", "p"}, {"loud", 1}}), "with.loud must be true or false, not 1");
  EXPECT_EQ(sentence_of({{"path", "p"}, {"steps", {1, "x"}}}), "with.steps[1] must be an integer, not \"x\"");
  EXPECT_EQ(sentence_of({{"path", "p"}, {"weights", 1}}), "with.weights must be a map, not 1");
  EXPECT_EQ(sentence_of({{"path", "p"}, {"small", 256}}), "with.small must be between 0 and 255, not 256");
  EXPECT_EQ(sentence_of({{"path", "p"}, {"small", 0}}), "with.small must not be zero");
}

TEST(HookRunner, NamesStageAndKeyOfARefusal) {
  const LoadFailed wrong_type = failure_of(load_of("options_probe", {{"path", "p"}, {"steps", {1, "x"}}}));
  EXPECT_EQ(wrong_type.generation, kOwn);
  EXPECT_EQ(wrong_type.stage, "arguments");
  EXPECT_EQ(wrong_type.key, "with.steps");
  const LoadFailed none_taken = failure_of(load_of("no_arguments", {{"patience", 1}}));
  EXPECT_EQ(none_taken.key, "with.patience");
  EXPECT_EQ(none_taken.failure.message, "with.patience is not an argument (there are none)");
  const LoadFailed thrown = failure_of(load_of("constructor_throws"));
  EXPECT_EQ(thrown.stage, "constructor");
  EXPECT_EQ(thrown.failure.type, "std::out_of_range");
  EXPECT_EQ(thrown.failure.message, "the moon is too far");
  const LoadFailed absent = failure_of(load_of("does_not_exist"));
  EXPECT_EQ(absent.stage, "find");
  EXPECT_EQ(absent.key, "use");
  EXPECT_EQ(failure_of(load_of("no_note")).stage, "import");
  EXPECT_EQ(failure_of(load_of("wrong_abi")).stage, "check");
}

TEST(HookRunner, RefusesAnotherClassAndAnUnknownHook) {
  Load load = load_of("echo");
  load.config.class_name = "Ecco";
  const LoadFailed wrong_class = failure_of(load);
  EXPECT_EQ(wrong_class.stage, "check");
  EXPECT_EQ(wrong_class.failure.message, kPlugins + "echo.so has no class Ecco; it has Echo");
  EXPECT_EQ(failure_of(load_of("wrong_table")).failure.message,
            "WrongTable overrides on_moon_rise, which this bulkhead does not have; rebuild the plugin");
}

TEST(CleanText, KeepsUtf8CutsAndReplaces) {
  EXPECT_EQ(clean_text("caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x9a\xa2"),
            "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x9a\xa2");
  EXPECT_EQ(clean_text("a\xff\xc3"), "a\xef\xbf\xbd\xef\xbf\xbd");
  EXPECT_EQ(clean_text("\xc0\x80"), "\xef\xbf\xbd\xef\xbf\xbd");       // overlong
  EXPECT_EQ(clean_text("\xed\xa0\x80").substr(0, 3), "\xef\xbf\xbd");  // surrogate
  EXPECT_EQ(clean_text("ab\xe2\x82\xac", 4), "ab");                    // not in the middle of a letter
}

}  // namespace
}  // namespace bulkhead
