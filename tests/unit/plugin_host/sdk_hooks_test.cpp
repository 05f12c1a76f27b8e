#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "bulkhead/plugin.h"
#include "protocol/hooks.h"

namespace {

using bulkhead::Batch;
using bulkhead::Context;
using bulkhead::Plugin;

template <class X>
std::vector<std::string> overridden() {
  std::vector<std::string> names;
  for (const auto& hook : bulkhead::entry::hooks_of<X>()) names.emplace_back(bulkhead::abi::view(hook));
  return names;
}

TEST(SdkHooks, AreTheProtocolsHooksInItsOrder) {
  std::vector<std::string_view> ours(bulkhead::entry::kHookNames.begin(), bulkhead::entry::kHookNames.end());
  std::vector<std::string_view> protocol;
  for (const bulkhead::HookInfo& hook : bulkhead::all_hooks()) protocol.push_back(hook.name);
  EXPECT_EQ(ours, protocol);
}

TEST(SdkHooks, CanAllBeCalled) {
  for (const std::string_view name : bulkhead::entry::kHookNames) {
    EXPECT_NE(bulkhead::entry::find_hook(name), nullptr) << name;
  }
  EXPECT_EQ(bulkhead::entry::find_hook("on_moon_rise"), nullptr);
}

struct Nothing : Plugin {};
struct One : Plugin {
  void on_step_end(Context&) override {}
};
struct Inherits : One {
  void transform_train_batch(Batch&, Context&) final {}
};
struct Private : Plugin {
 private:
  void on_save_end(Context&) override {}
};
struct Overloaded : Plugin {
  void on_load(Context&) override {}
  void on_load(int) {}
};
struct Stateful : Plugin {
  std::string state_dict() override { return {}; }
  void load_state_dict(std::string_view) noexcept override {}
};

// One override of each shape a hook can have.
struct EveryShape : Plugin {
  bulkhead::Changes configure(const bulkhead::Config&, Context&) override { return {}; }
  bool should_stop(Context&) override { return false; }
  bulkhead::Json preprocess(bulkhead::Json rows, Context&) override { return rows; }
  bool keep(const bulkhead::Json&, Context&) override { return true; }
  bulkhead::Encoded encode(const bulkhead::Json&, Context&) override { return {}; }
  void collate(std::span<const bulkhead::TokenSample>, Batch&, Context&) override {}
  void transform_image(bulkhead::Image&, Context&) override {}
  std::string transform_caption(std::string caption, Context&) override { return caption; }
  void transform_sample(bulkhead::Sample&, Context&) override {}
  void transform_test_batch(Batch&, Context&) override {}
  std::string state_dict() override { return {}; }
  void load_state_dict(std::string_view) override {}
};

TEST(SdkHooks, SeesOverridesOfEveryShape) {
  EXPECT_EQ(overridden<EveryShape>(),
            (std::vector<std::string>{"configure", "should_stop", "preprocess", "keep", "encode",
                                      "transform_image", "transform_caption", "transform_sample", "collate",
                                      "transform_test_batch", "state_dict", "load_state_dict"}));
}

TEST(SdkHooks, KnowsAtCompileTimeWhichAreOverridden) {
  static_assert(!bulkhead::entry::Overrides<Nothing>::on_step_end());
  static_assert(bulkhead::entry::Overrides<One>::on_step_end());
  EXPECT_EQ(overridden<Nothing>(), std::vector<std::string>{});
  EXPECT_EQ(overridden<One>(), std::vector<std::string>{"on_step_end"});
}

TEST(SdkHooks, SeesInheritedPrivateAndOverloadedOverrides) {
  EXPECT_EQ(overridden<Inherits>(), (std::vector<std::string>{"on_step_end", "transform_train_batch"}));
  EXPECT_EQ(overridden<Private>(), std::vector<std::string>{"on_save_end"});
  EXPECT_EQ(overridden<Overloaded>(), std::vector<std::string>{"on_load"});
  EXPECT_EQ(overridden<Stateful>(), (std::vector<std::string>{"state_dict", "load_state_dict"}));
}

struct Declares : Plugin {
  static constexpr bool steers = false;
  static constexpr bool stateless = true;
  static constexpr bool seeded = false;
  static constexpr std::array<const char*, 2> claims{"train_batch", "should_stop"};
};

TEST(SdkHooks, ReadsWhatAClassDeclares) {
  const auto* table = bulkhead::entry::table<Declares>("my::space::Declares");
  EXPECT_EQ(bulkhead::abi::view(table->class_name), "Declares");
  EXPECT_FALSE(table->steers);
  EXPECT_TRUE(table->stateless);
  EXPECT_FALSE(table->seeded);
  ASSERT_EQ(table->claim_count, 2u);
  EXPECT_EQ(bulkhead::abi::view(table->claims[1]), "should_stop");
}

TEST(SdkHooks, CountAsStatelessWithoutStateDict) {
  EXPECT_TRUE(bulkhead::entry::stateless_of<One>());
  EXPECT_FALSE(bulkhead::entry::stateless_of<Stateful>());
  EXPECT_TRUE(bulkhead::entry::steers_of<One>());
  EXPECT_TRUE(bulkhead::entry::seeded_of<One>());
}

}  // namespace
