#include "protocol/messages.h"

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "support/sample_messages.h"

namespace bulkhead {
namespace {

Hello good_hello() {
  Hello hello;
  hello.role = "host";
  hello.secret = "sesame";
  return hello;
}

TEST(Messages, HaveEachItsOwnType) {
  std::set<std::string_view> types;
  for (const Message& message : all_samples()) types.insert(type_of(message));
  EXPECT_EQ(types.size(), std::variant_size_v<Message>);
}

TEST(Messages, CarryTheGenerationOfTheirSender) {
  EXPECT_EQ(generation_of(Stop{.generation = Generation(7), .reason = {}}), Generation(7));
  for (const Message& message : all_samples())
    EXPECT_NE(generation_of(message), Generation()) << type_of(message);
}

TEST(Messages, FillEveryFieldOfTheirSamples) {
  EXPECT_EQ(text_of(Heartbeat{}), R"(heartbeat {"generation":0,"step":0})");
  for (const Message& message : all_samples()) {
    const Value sample = std::visit([](const auto& body) { return as_value(body); }, message);
    const Value fresh =
        std::visit([](const auto& body) { return as_value(std::decay_t<decltype(body)>{}); }, message);
    for (const auto& [name, value] : sample.items()) {
      // As texts: −0.0 is another value than 0.0 here.
      EXPECT_TRUE(value.dump() != fresh.at(name).dump() || name == "magic")
          << type_of(message) << "." << name;
    }
  }
}

Control stop(const std::string& reason) {
  Control control;
  control.stop = true;
  control.reason = reason;
  return control;
}

TEST(Control, MergesByOrAndKeepsTheFirstReason) {
  Control merged;
  Control save;
  save.save = true;
  save.reason = "not a stop";
  merged.merge(save);
  EXPECT_TRUE(merged.save);
  EXPECT_EQ(merged.reason, "");
  merged.merge(stop("first"));
  Control epoch = stop("second");
  epoch.stop_epoch = true;
  merged.merge(epoch);
  EXPECT_TRUE(merged.stop && merged.stop_epoch && merged.save);
  EXPECT_FALSE(merged.validate || merged.log);
  EXPECT_EQ(merged.reason, "first");
}

TEST(Control, TakesALaterReasonWhereTheFirstGaveNone) {
  Control merged = stop("");
  merged.merge(stop("because"));
  EXPECT_EQ(merged.reason, "because");
}

TEST(Control, AsksForSomethingWithAnyOneFlag) {
  Control control;
  control.reason = "a reason alone is no wish";
  EXPECT_FALSE(control.any());
  for (bool Control::*flag :
       {&Control::stop, &Control::stop_epoch, &Control::save, &Control::validate, &Control::log}) {
    Control one;
    one.*flag = true;
    EXPECT_TRUE(one.any());
    control.merge(one);
    EXPECT_TRUE(control.*flag);
  }
}

Setting setting(const std::string& name, std::optional<double> value, std::int64_t plugin,
                std::int64_t rank) {
  return {name, value, plugin, rank};
}

TEST(Control, PutsSettingsBehindOneAnother) {
  Control merged;
  Control other;
  other.settings = {setting("lr", 0.1, 0, 0), setting("lr", 0.2, 0, 0)};
  EXPECT_TRUE(other.any());
  merged.merge(other);
  merged.merge(other);
  EXPECT_EQ(merged.settings.size(), 4u);
  EXPECT_FALSE(merged.stop || merged.save);
}

TEST(ChosenSettings, AreOneOfEachNameInTheOrderOfNames) {
  EXPECT_TRUE(chosen({}).empty());
  const auto all = chosen({setting("save_every", 5, 0, 0), setting("grad_accum", 2, 0, 0)});
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].name, "grad_accum");
  EXPECT_EQ(all[1], setting("save_every", 5, 0, 0));
}

TEST(ChosenSettings, AreTheLastPluginsInListOrderWhoeverSpokeFirst) {
  const Setting first = setting("lr", 0.1, 0, 0);
  const Setting last = setting("lr", 0.2, 3, 1);
  EXPECT_EQ(chosen({first, last}), std::vector<Setting>{last});
  EXPECT_EQ(chosen({last, first}), std::vector<Setting>{last});
}

TEST(ChosenSettings, AreTheLowestRanksWithinAPlugin) {
  const Setting low = setting("lr", 0.1, 2, 0);
  const Setting high = setting("lr", 0.2, 2, 1);
  EXPECT_EQ(chosen({low, high}), std::vector<Setting>{low});
  EXPECT_EQ(chosen({high, low}), std::vector<Setting>{low});
}

TEST(ChosenSettings, AreWhatARankSaidLast) {
  const Setting earlier = setting("lr", 0.1, 2, 0);
  const Setting back_to_schedule = setting("lr", std::nullopt, 2, 0);
  EXPECT_EQ(chosen({earlier, back_to_schedule}), std::vector<Setting>{back_to_schedule});
  EXPECT_EQ(chosen({back_to_schedule, setting("lr", 0.3, 2, 1), earlier}), std::vector<Setting>{earlier});
}

TEST(Refusal, LetsInWhoSpeaksTheSameVersionAndKnowsTheSecret) {
  EXPECT_EQ(refusal(good_hello(), "sesame"), "");
}

TEST(Refusal, TurnsAwayAnotherMagicVersionOrSecret) {
  Hello other = good_hello();
  other.magic = "http";
  EXPECT_NE(refusal(other, "sesame").find("not a bulkhead process"), std::string::npos);

  Hello newer = good_hello();
  newer.version_min = kProtocolMax + 1;
  newer.version_max = kProtocolMax + 3;
  EXPECT_NE(refusal(newer, "sesame").find("1, the other 2 to 4"), std::string::npos)
      << refusal(newer, "sesame");

  Hello stranger = good_hello();
  stranger.secret = "swordfish";
  EXPECT_NE(refusal(stranger, "sesame").find("BULKHEAD_SECRET"), std::string::npos);
  EXPECT_EQ(refusal(stranger, "sesame").find("sesame"), std::string::npos);
}

TEST(Refusal, LetsInARangeOfVersionsThatOverlaps) {
  Hello newer = good_hello();
  newer.version_max = kProtocolMax + 9;
  EXPECT_EQ(refusal(newer, "sesame"), "");
}

TEST(PluginTraits, KnowTheHooksThatAreOverridden) {
  PluginTraits traits;
  traits.hooks = {"setup", "on_step_end"};
  EXPECT_TRUE(traits.has("on_step_end"));
  EXPECT_FALSE(traits.has("on_step"));
}

}  // namespace
}  // namespace bulkhead
