#include "protocol/hooks.h"

#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace bulkhead {
namespace {

std::vector<std::string> names() {
  std::vector<std::string> all;
  for (const HookInfo& hook : all_hooks()) all.emplace_back(hook.name);
  return all;
}

TEST(Hooks, NamesEachHookOnce) {
  const std::vector<std::string> all = names();
  EXPECT_EQ(std::set<std::string>(all.begin(), all.end()).size(), all.size());
  for (const HookInfo& hook : all_hooks()) EXPECT_FALSE(hook.when.empty()) << hook.name;
}

TEST(Hooks, FindsAHookByItsNameAndNothingElse) {
  for (const HookInfo& hook : all_hooks()) EXPECT_EQ(find_hook(hook.name), &hook);
  EXPECT_EQ(find_hook("on_step_ends"), nullptr);
  EXPECT_EQ(find_hook(""), nullptr);
}

TEST(Hooks, SayWhatTheyHold) {
  for (const HookInfo& hook : all_hooks()) EXPECT_FALSE(hook.holds.empty()) << hook.name;
}

TEST(Hooks, GivesEachPrefixItsKind) {
  const std::set<std::string> samples = {"transform_image", "transform_caption", "transform_sample"};
  const std::set<std::string> rows = {"preprocess", "keep", "encode"};
  for (const HookInfo& hook : all_hooks()) {
    if (samples.contains(std::string(hook.name))) {
      EXPECT_EQ(hook.kind, HookKind::kSample) << hook.name;
    } else if (rows.contains(std::string(hook.name))) {
      EXPECT_EQ(hook.kind, HookKind::kRows) << hook.name;
    } else if (hook.name == "collate") {
      EXPECT_EQ(hook.kind, HookKind::kCollate) << hook.name;
    } else if (hook.name.starts_with("transform_")) {
      EXPECT_EQ(hook.kind, HookKind::kTransform) << hook.name;
    } else if (hook.name.ends_with("state_dict")) {
      EXPECT_EQ(hook.kind, HookKind::kState) << hook.name;
    } else {
      EXPECT_EQ(hook.kind, HookKind::kNotify) << hook.name;
    }
    const bool of_chain = hook.name.starts_with("transform_") || hook.name == "collate";
    EXPECT_EQ(hook.moves_batch(), of_chain) << hook.name;
    EXPECT_EQ(hook.takes_samples(), samples.contains(std::string(hook.name)) || hook.name == "collate");
  }
}

TEST(Hooks, WaitsForEverythingButWhatBelongsToAStep) {
  const std::set<std::string> unwaited = {"on_step_start", "on_step_end",          "on_backward_end",
                                          "on_log",        "on_substep_end",       "on_optimizer_step_start",
                                          "should_stop",   "on_optimizer_step_end"};
  for (const HookInfo& hook : all_hooks()) {
    const bool step = unwaited.contains(std::string(hook.name)) || hook.moves_batch();
    EXPECT_EQ(hook.pace == HookPace::kStep, step) << hook.name;
    EXPECT_EQ(hook.pace == HookPace::kStart, hook.name == "setup" || hook.name == "configure") << hook.name;
  }
}

TEST(Hooks, NamesItsKindsAndPacesForPeople) {
  EXPECT_EQ(name_of(HookKind::kSample), "transform (per sample)");
  EXPECT_EQ(name_of(HookKind::kRows), "transform (data set)");
  EXPECT_EQ(name_of(HookKind::kCollate), "transform (samples to batch)");
  EXPECT_EQ(name_of(HookKind::kNotify), "notify");
  EXPECT_EQ(name_of(HookPace::kWaited), "waited");
  EXPECT_EQ(name_of(HookPace::kStart), "start");
}

TEST(NearestName, FindsTheHookThatWasMeant) {
  EXPECT_EQ(nearest_name("on_step_ends", names()), "on_step_end");
  EXPECT_EQ(nearest_name("on_validation_end", names()), "on_validate_end");
  EXPECT_EQ(nearest_name("transform_captions", names()), "transform_caption");
  EXPECT_EQ(nearest_name("transfrom_train_batch", names()), "transform_train_batch");
  EXPECT_EQ(nearest_name("should_stp", names()), "should_stop");
}

TEST(NearestName, SaysNothingWhenNothingIsClose) {
  EXPECT_EQ(nearest_name("reticulate_splines", names()), "");
  EXPECT_EQ(nearest_name("anything", {}), "");
}

TEST(NearestName, TakesTheFirstOfEquallyCloseOnes) {
  EXPECT_EQ(nearest_name("cat", {"bat", "rat"}), "bat");
  EXPECT_EQ(nearest_name("cat", {"bat", "cat"}), "cat");
}

}  // namespace
}  // namespace bulkhead
