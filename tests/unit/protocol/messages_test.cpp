#include "protocol/messages.h"

#include <set>
#include <string>
#include <string_view>

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
      EXPECT_TRUE(value != fresh.at(name) || name == "magic") << type_of(message) << "." << name;
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
