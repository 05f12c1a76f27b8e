// ctx.all_gather's meeting place: whoever comes, in whatever order, nobody
// waits for one that will not.
#include "gather_hub.h"

#include <algorithm>
#include <numeric>

#include <gtest/gtest.h>

namespace bulkhead {
namespace {

constexpr const char* kCall = "12 on_step_end at step 7";

struct Word {
  std::int64_t rank = 0;
  std::string state{};
  std::int64_t number = 0;
};

GatherPart part_of(const Word& word, const std::string& call = kCall) {
  GatherPart part;
  part.plugin = PluginId(1);
  part.call = call;
  part.number = word.number;
  part.state = word.state;
  if (word.state == "part") {
    const std::string bytes = std::to_string(word.rank) + "." + std::to_string(word.number);
    part.batch = {{"value", DType::kUInt8, {static_cast<std::int64_t>(bytes.size())}, Blob::of(bytes)}};
  }
  return part;
}

// "0: 0=0.0 2=2.0" for each gather that is done, or its sentence.
std::vector<std::string> texts_of(const GatherHub::Words& words) {
  std::vector<std::string> texts;
  for (const GatherDone& done : words.done) {
    std::string text = std::to_string(done.number) + ":" + (done.missing.empty() ? "" : " ") + done.missing;
    for (const Tensor& tensor : done.batch)
      text += " " + tensor.name + "=" + std::string(tensor.bytes.text());
    texts.push_back(std::move(text));
  }
  return texts;
}

// What is heard after `words` in this order.
std::vector<std::string> heard(GatherHub& hub, const std::vector<Word>& words) {
  std::vector<std::string> texts;
  for (const Word& word : words) {
    const auto more = texts_of(hub.take(word.rank, part_of(word)));
    texts.insert(texts.end(), more.begin(), more.end());
  }
  return texts;
}

struct Meeting {
  const char* what;
  std::vector<Word> words;  // of different ranks; the first asks, the others come in any order
  std::vector<std::string> done;
};

const std::vector<Meeting> kMeetings = {
    {"all three give their part", {{0, "part"}, {1, "part"}, {2, "part"}}, {"0: 0=0.0 1=1.0 2=2.0"}},
    {"one returned without asking",
     {{0, "part"}, {1, "over"}, {2, "part"}},
     {"0: rank 1 returned from on_step_end at step 7 without calling all_gather"}},
    {"two returned without asking",
     {{1, "part"}, {0, "over"}, {2, "over"}},
     {"0: ranks 0 and 2 returned from on_step_end at step 7 without calling all_gather"}},
    {"one has lost the plugin", {{0, "part"}, {1, "gone"}, {2, "part"}}, {"0: 0=0.0 2=2.0"}},
    {"one lost the plugin and one returned",
     {{0, "part"}, {1, "gone"}, {2, "over"}},
     {"0: rank 2 returned from on_step_end at step 7 without calling all_gather"}},
    {"only one rank is left", {{2, "part"}, {0, "gone"}, {1, "gone"}}, {"0: 2=2.0"}},
};

TEST(Gather, EndsInTheSameWayInWhateverOrderTheRanksCome) {
  for (const Meeting& meeting : kMeetings) {
    std::vector<std::size_t> order(meeting.words.size());
    std::iota(order.begin(), order.end(), 0);
    do {
      if (meeting.words[order.front()].state != "part") continue;
      GatherHub hub(3);
      std::vector<Word> words;
      for (const std::size_t place : order) words.push_back(meeting.words[place]);
      EXPECT_EQ(heard(hub, words), meeting.done) << meeting.what;
      EXPECT_EQ(hub.open(), 0U);
    } while (std::next_permutation(order.begin(), order.end()));
  }
}

TEST(Gather, AsksTheOthersOnceWhenTheFirstPartComes) {
  GatherHub hub(3);
  const GatherHub::Words words = hub.take(1, part_of({1, "part"}));
  ASSERT_EQ(words.wanted.size(), 2U);
  EXPECT_EQ(words.wanted[0].first, 0);
  EXPECT_EQ(words.wanted[1].first, 2);
  EXPECT_EQ(words.wanted[0].second.call, kCall);
  EXPECT_TRUE(hub.take(0, part_of({0, "part"})).wanted.empty());
}

TEST(Gather, AsksNobodyWhoHasLostThePlugin) {
  GatherHub hub(3);
  hub.give_up(PluginId(1), 2);
  const GatherHub::Words words = hub.take(1, part_of({1, "part"}));
  ASSERT_EQ(words.wanted.size(), 1U);
  EXPECT_EQ(words.wanted[0].first, 0);
}

TEST(Gather, WhatNobodyAskedForLeavesNothing) {
  GatherHub hub(2);
  EXPECT_TRUE(heard(hub, {{0, "over"}, {1, "gone"}}).empty());
  EXPECT_EQ(hub.open(), 0U);
}

TEST(Gather, WaitsForAPeerThatDiedAndComesBack) {
  GatherHub hub(2);
  EXPECT_TRUE(heard(hub, {{0, "part"}}).empty());
  // Nothing is said of rank 1's death; its next incarnation asks.
  EXPECT_EQ(heard(hub, {{1, "part"}}), std::vector<std::string>{"0: 0=0.0 1=1.0"});
}

TEST(Gather, GoesOnWithoutARankOnWhichThePluginWasGivenUp) {
  GatherHub hub(3);
  EXPECT_TRUE(heard(hub, {{0, "part"}, {2, "part"}}).empty());
  EXPECT_EQ(texts_of(hub.give_up(PluginId(1), 1)), std::vector<std::string>{"0: 0=0.0 2=2.0"});
  // Of later ones it is absent from the beginning, and its late words are dropped.
  EXPECT_TRUE(heard(hub, {{1, "part"}}).empty());
  EXPECT_EQ(hub.open(), 0U);
  const std::string next = "13 on_step_end at step 8";
  EXPECT_TRUE(texts_of(hub.take(0, part_of({0, "part"}, next))).empty());
  EXPECT_EQ(texts_of(hub.take(2, part_of({2, "part"}, next))), std::vector<std::string>{"0: 0=0.0 2=2.0"});
}

TEST(Gather, KeepsThePartOfARankThatWasGivenUpAfterwards) {
  GatherHub hub(3);
  heard(hub, {{1, "part"}, {0, "part"}});
  EXPECT_TRUE(hub.give_up(PluginId(1), 1).done.empty());
  EXPECT_EQ(heard(hub, {{2, "part"}}), std::vector<std::string>{"0: 0=0.0 1=1.0 2=2.0"});
}

TEST(Gather, LeavesOtherPluginsAloneWhenOneIsGivenUp) {
  GatherHub hub(2);
  heard(hub, {{0, "part"}});
  EXPECT_TRUE(hub.give_up(PluginId(0), 1).done.empty());
  EXPECT_TRUE(hub.give_up(PluginId(2), 1).done.empty());
  EXPECT_EQ(heard(hub, {{1, "part"}}), std::vector<std::string>{"0: 0=0.0 1=1.0"});
}

TEST(Gather, TakesSeveralInOneCall) {
  GatherHub hub(2);
  EXPECT_EQ(heard(hub, {{0, "part"}, {1, "part"}, {1, "part", 1}, {0, "part", 1}}),
            (std::vector<std::string>{"0: 0=0.0 1=1.0", "1: 0=0.1 1=1.1"}));
  EXPECT_EQ(heard(hub, {{0, "part", 2}, {1, "over", 2}}),
            std::vector<std::string>{
                "2: rank 1 returned from on_step_end at step 7 after fewer calls of all_gather than the 3 "
                "made here"});
}

TEST(Gather, TakesTheFirstPartOfACallThatIsMadeAgain) {
  GatherHub hub(2);
  GatherPart again = part_of({0, "part"});
  again.batch.front().bytes = Blob::of(std::string("new"));
  heard(hub, {{0, "part"}});
  EXPECT_TRUE(hub.take(0, again).done.empty());
  EXPECT_EQ(heard(hub, {{1, "part"}}), std::vector<std::string>{"0: 0=0.0 1=1.0"});
}

TEST(Gather, KeepsNothingOfAGatherThatIsDone) {
  GatherHub hub(2);
  for (int step = 0; step < 1000; ++step) {
    const std::string call = std::to_string(step) + " on_step_end at step " + std::to_string(step);
    for (std::int64_t rank = 0; rank < 2; ++rank) hub.take(rank, part_of({rank, "part"}, call));
    EXPECT_EQ(hub.open(), 0U);
  }
}

TEST(Gather, ForgetsEverythingWhenTheRanksStartAgain) {
  GatherHub hub(2);
  heard(hub, {{0, "part"}});
  hub.give_up(PluginId(1), 1);
  hub.clear();
  EXPECT_TRUE(heard(hub, {{0, "part"}}).empty());
  EXPECT_EQ(heard(hub, {{1, "part"}}), std::vector<std::string>{"0: 0=0.0 1=1.0"});
}

TEST(Gather, NamesACallOfAnUnknownFormAsItIs) {
  GatherHub hub(2);
  hub.take(0, part_of({0, "part"}, "load"));
  EXPECT_EQ(texts_of(hub.take(1, part_of({1, "over"}, "load"))),
            std::vector<std::string>{"0: rank 1 returned from load without calling all_gather"});
}

}  // namespace
}  // namespace bulkhead
