// The shipped C++ plugins, called as the host calls them.

#include <cstring>
#include <filesystem>

#include <gtest/gtest.h>

#include "hook_runner.h"
#include "protocol/hooks.h"
#include "protocol/texts.h"
#include "support/temporary_directory.h"

namespace bulkhead {
namespace {

namespace fs = std::filesystem;
using Tokens = std::vector<std::int64_t>;

Tensor tokens_of(const std::string& name, std::vector<std::int64_t> shape, const Tokens& values) {
  std::string bytes(values.size() * sizeof(std::int64_t), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return {name, DType::kInt64, std::move(shape), Blob::of(bytes)};
}

Tokens values_of(const Tensor& tensor) {
  Tokens values(tensor.bytes.size / sizeof(std::int64_t));
  std::memcpy(values.data(), tensor.bytes.data, tensor.bytes.size);
  return values;
}

class ShippedPlugins : public testing::Test {
 protected:
  HookRunner::Loading load(const std::string& name, Value with) const {
    Load load;
    load.config.file = BULKHEAD_BUILD_DIR "/plugins/" + name + ".so";
    load.config.with = std::move(with);
    load.facts.plugin = name;
    load.facts.run_dir = directory_.path().string();
    return HookRunner::load(load, Generation{1});
  }
  std::unique_ptr<HookRunner> loaded(const std::string& name, Value with) const {
    auto loading = load(name, std::move(with));
    if (const auto* failed = std::get_if<LoadFailed>(&loading)) ADD_FAILURE() << failed->failure.message;
    return std::move(std::get<std::unique_ptr<HookRunner>>(loading));
  }
  std::string refusal(const std::string& name, Value with) const {
    const auto loading = load(name, std::move(with));
    const auto* failed = std::get_if<LoadFailed>(&loading);
    return failed != nullptr ? failed->failure.message : "it was loaded";
  }

  static Reply run(HookRunner& runner, Call call) {
    return runner.run(call, {[](const Message&) {}, nullptr});
  }
  static Reply notify(HookRunner& runner, const std::string& hook, std::int64_t step) {
    Call call;
    call.hook = hook;
    call.context.global_step = step;
    return run(runner, call);
  }
  static Reply transform(HookRunner& runner, Batch batch, std::int64_t step = 0) {
    Call call;
    call.hook = "transform_train_batch";
    call.batch = std::move(batch);
    call.context.global_step = step;
    return run(runner, call);
  }

  TemporaryDirectory directory_;
};

TEST_F(ShippedPlugins, TokenNoiseReplacesItsShareOfTokensAndNothingElse) {
  const auto runner = loaded("token_noise", {{"probability", 0.25}, {"vocabulary", 1000}});
  EXPECT_TRUE(runner->traits().stateless);
  const Batch batch{tokens_of("input_ids", {4, 1000}, Tokens(4000, -1)), tokens_of("labels", {1}, {5})};
  const Reply reply = transform(*runner, batch);
  EXPECT_EQ(reply.kept, std::vector<std::string>{"labels"});
  ASSERT_EQ(reply.batch.size(), 1u);
  const Tokens noisy = values_of(reply.batch[0]);
  const auto changed = std::count_if(noisy.begin(), noisy.end(),
                                     [](std::int64_t token) { return token >= 0 && token < 1000; });
  EXPECT_EQ(changed + std::count(noisy.begin(), noisy.end(), -1), 4000);
  EXPECT_NEAR(static_cast<double>(changed), 1000.0, 150.0);
  EXPECT_EQ(values_of(transform(*runner, batch).batch[0]), noisy);     // a retry
  EXPECT_NE(values_of(transform(*runner, batch, 1).batch[0]), noisy);  // another step
}

TEST_F(ShippedPlugins, TokenNoiseTakesTheVocabularyFromTheBatch) {
  const auto runner = loaded("token_noise", {{"probability", 1.0}});
  Tokens zeros(1000, 0);
  zeros[0] = 3;
  const Tokens noisy = values_of(transform(*runner, {tokens_of("input_ids", {1000}, zeros)}).batch[0]);
  EXPECT_EQ(*std::min_element(noisy.begin(), noisy.end()), 0);
  EXPECT_EQ(*std::max_element(noisy.begin(), noisy.end()), 3);
}

TEST_F(ShippedPlugins, TokenNoiseLeavesOtherBatchesAlone) {
  const auto runner = loaded("token_noise", Value::object());
  const Reply reply = transform(*runner, {tokens_of("labels", {1}, {5})});
  EXPECT_EQ(reply.kept, std::vector<std::string>{"labels"});
  EXPECT_TRUE(reply.batch.empty());
}

TEST_F(ShippedPlugins, RefuseArgumentsThatMakeNoSense) {
  EXPECT_EQ(refusal("token_noise", {{"probability", 1.5}}), "with.probability must be between 0 and 1");
  EXPECT_EQ(
      refusal("token_noise", {{"probabilty", 0.5}}),
      "with.probabilty is not an argument (known: probability, vocabulary); did you mean \"probability\"?");
  EXPECT_EQ(
      refusal("saboteur", {{"how", "sing"}}),
      "with.how must be one of segv, abort, kill, exit0, exit3, terminate, hang, stop, raise, garbage, nan, "
      "wrong_shape, wrong_type, not \"sing\"");
  EXPECT_EQ(refusal("saboteur", {{"how", "nan"}}),
            "with.how is nan, which needs hook: transform_train_batch, not on_step_end");
  EXPECT_EQ(refusal("saboteur", {{"hook", "on_moon_rise"}}),
            "with.hook must be a hook but encode and collate, or __init__, not \"on_moon_rise\"");
  EXPECT_EQ(refusal("saboteur", {{"hook", "collate"}}),
            "with.hook must be a hook but encode and collate, or __init__, not \"collate\"");
}

TEST_F(ShippedPlugins, SaboteurStrikesOnlyAtItsPlace) {
  const auto runner =
      loaded("saboteur", {{"how", "throw"}, {"hook", "on_step_end"}, {"step", {3, 5}}, {"times", 2}});
  EXPECT_FALSE(notify(*runner, "on_step_end", 2).failure);
  EXPECT_FALSE(notify(*runner, "on_step_start", 3).failure);
  EXPECT_TRUE(notify(*runner, "on_step_end", 3).failure);
  EXPECT_TRUE(notify(*runner, "on_step_end", 3).failure);
  EXPECT_FALSE(notify(*runner, "on_step_end", 3).failure);
  EXPECT_TRUE(notify(*runner, "on_step_end", 5).failure);
}

TEST_F(ShippedPlugins, SaboteurStrikesAtAnyHookOfTheTable) {
  for (const HookInfo& hook : all_hooks()) {
    const bool of_data = hook.moves_batch() || hook.kind == HookKind::kRows;  // below
    if (of_data || hook.name == "configure") continue;
    const auto runner = loaded("saboteur", {{"how", "throw"}, {"hook", hook.name}});
    EXPECT_TRUE(runner->traits().has(hook.name)) << hook.name;
    if (hook.name == "load_state_dict") {
      Call call;
      call.hook = hook.name;
      call.state = Blob::of(std::string("1"));
      EXPECT_TRUE(run(*runner, call).failure);
    } else {
      EXPECT_TRUE(notify(*runner, std::string(hook.name), 0).failure) << hook.name;
    }
  }
  EXPECT_TRUE(
      loaded("saboteur", {{"how", "throw"}, {"hook", "configure"}})->configure(Value::object()).failure);
}

Call of_micro_batch(const std::string& hook, std::int64_t micro) {
  Call call;
  call.hook = hook;
  call.context.micro_batch = micro;
  call.batch = {{"images", DType::kUInt8, {2, 1, 1, 3}, Blob::of(std::string(6, 'x'))},
                tokens_of("sample", {2}, {4, 5})};
  const std::vector<std::string> texts{"a", "b"}, rows{"{}", "{}"};
  for (const char* name : {"captions", "paths"}) {
    for (Tensor& tensor : pack_texts(name, texts)) call.batch.push_back(std::move(tensor));
  }
  for (Tensor& tensor : pack_texts("rows", rows)) call.batch.push_back(std::move(tensor));
  return call;
}

TEST_F(ShippedPlugins, SaboteurStrikesOnceAtTheChosenMicroBatch) {
  for (const std::string hook :
       {"preprocess", "keep", "transform_image", "transform_caption", "transform_sample",
        "transform_train_batch", "on_backward_end", "transform_validate_batch", "transform_test_batch",
        "on_substep_end", "on_validate_step_end"}) {
    const auto first = loaded("saboteur", {{"how", "throw"}, {"hook", hook}, {"step", 0}});
    EXPECT_FALSE(run(*first, of_micro_batch(hook, 1)).failure) << hook;
    EXPECT_TRUE(run(*first, of_micro_batch(hook, 0)).failure) << hook;
    EXPECT_FALSE(run(*first, of_micro_batch(hook, 0)).failure) << hook;
    fs::remove_all(directory_.path() / "saboteur");
    const auto later = loaded("saboteur", {{"how", "throw"}, {"hook", hook}, {"micro", 2}});
    EXPECT_FALSE(run(*later, of_micro_batch(hook, 0)).failure) << hook;
    EXPECT_TRUE(run(*later, of_micro_batch(hook, 2)).failure) << hook;
    fs::remove_all(directory_.path() / "saboteur");
    const auto any = loaded("saboteur", {{"how", "throw"}, {"hook", hook}, {"micro", -1}});
    EXPECT_TRUE(run(*any, of_micro_batch(hook, 5)).failure) << hook;
    EXPECT_FALSE(run(*any, of_micro_batch(hook, 6)).failure) << hook;
    fs::remove_all(directory_.path() / "saboteur");
  }
}

TEST_F(ShippedPlugins, SaboteurStrikesAfterItHasAskedAndKeepsWhatItHeard) {
  int asked = 0;
  const auto gathering = [&](HookRunner& runner) {
    Call call;
    call.hook = "on_step_end";
    return runner.run(call, {[](const Message&) {},
                             [&](const Ask& question) {
                               ++asked;
                               Answer answer;
                               answer.batch = question.batch;
                               answer.batch[0].name = "0";
                               return std::optional(answer);
                             }});
  };
  const auto runner = loaded("saboteur", {{"how", "throw"}, {"ask", true}});
  EXPECT_TRUE(gathering(*runner).failure);
  EXPECT_EQ(asked, 1);
  EXPECT_FALSE(gathering(*runner).failure);
  EXPECT_EQ(asked, 2);
  EXPECT_EQ(notify(*runner, "state_dict", 0).state.text(), "4");  // two calls, rank 0 heard twice
  const auto bystander = loaded("saboteur", {{"how", "throw"}, {"ask", true}, {"rank", 1}});
  EXPECT_FALSE(gathering(*bystander).failure);
  EXPECT_EQ(asked, 3);
  EXPECT_EQ(refusal("saboteur", {{"ask", true}, {"hook", "transform_image"}}),
            "with.ask needs a hook that all ranks call together, not transform_image");
}

TEST_F(ShippedPlugins, SaboteurDoesNothingZeroTimesAndStrikesAtAnyStepWhenTold) {
  const auto harmless = loaded("saboteur", {{"how", "throw"}, {"times", 0}});
  EXPECT_FALSE(notify(*harmless, "on_step_end", 0).failure);
  const auto runner = loaded("saboteur", {{"how", "throw"}, {"step", -1}});
  EXPECT_TRUE(notify(*runner, "on_step_end", 17).failure);
}

TEST_F(ShippedPlugins, SaboteurCountsItsDeedsOverRestarts) {
  const Value with{{"how", "raise"}, {"hook", "__init__"}};
  EXPECT_EQ(refusal("saboteur", with), "the saboteur was asked to raise");
  EXPECT_EQ(refusal("saboteur", with), "it was loaded");
}

TEST_F(ShippedPlugins, SaboteurLeavesOtherRanksAlone) {
  const auto runner = loaded("saboteur", {{"how", "throw"}, {"hook", "setup"}, {"rank", 1}});
  EXPECT_FALSE(notify(*runner, "setup", 0).failure);
}

TEST_F(ShippedPlugins, SaboteurEndsItsProcessInTheChosenWay) {
  // Each at a step of its own: they all count in one directory.
  const auto dies = [&](const std::string& how, std::int64_t step) {
    const auto runner = loaded("saboteur", {{"how", how}, {"step", step}});
    notify(*runner, "on_step_end", step);
  };
  // A fork of this process, which has no other thread: one that began anew would
  // die without removing its directory.
  GTEST_FLAG_SET(death_test_style, "fast");
  EXPECT_EXIT(dies("segv", 0), testing::KilledBySignal(SIGSEGV), "");
  EXPECT_EXIT(dies("kill", 1), testing::KilledBySignal(SIGKILL), "");
  EXPECT_EXIT(dies("abort", 2), testing::KilledBySignal(SIGABRT), "");
  EXPECT_EXIT(dies("terminate", 3), testing::KilledBySignal(SIGABRT), "");
  EXPECT_EXIT(dies("exit0", 4), testing::ExitedWithCode(0), "");
  EXPECT_EXIT(dies("exit3", 5), testing::ExitedWithCode(3), "");
}

TEST_F(ShippedPlugins, SaboteurShowsItsStateInTheBatches) {
  const auto runner = loaded("saboteur", {{"step", 99}});
  const Batch batch{tokens_of("input_ids", {2, 3}, {1, 2, 3, 4, 5, 6})};
  EXPECT_EQ(transform(*runner, batch).kept, std::vector<std::string>{"input_ids"});
  EXPECT_EQ(values_of(transform(*runner, batch).batch.at(0)), (Tokens{2, 1, 3, 5, 4, 6}));
  notify(*runner, "on_step_end", 0);
  const Reply state = notify(*runner, "state_dict", 0);
  EXPECT_EQ(state.state.text(), "3");

  const auto restarted = loaded("saboteur", {{"step", 99}});
  Call call;
  call.hook = "load_state_dict";
  call.state = state.state;
  EXPECT_FALSE(run(*restarted, call).failure);
  EXPECT_EQ(values_of(transform(*restarted, batch).batch.at(0)), (Tokens{2, 1, 3, 5, 4, 6}));
}

TEST_F(ShippedPlugins, SaboteurSpoilsBatches) {
  const auto runner = loaded("saboteur", {{"how", "wrong_shape"}, {"hook", "transform_train_batch"}});
  const Reply reply = transform(*runner, {tokens_of("input_ids", {1, 2}, {1, 2})});
  EXPECT_EQ(describe(reply.batch), "input_ids int64[1,2,3]");
}

}  // namespace
}  // namespace bulkhead
