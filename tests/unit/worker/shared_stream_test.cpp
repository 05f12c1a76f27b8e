#include "shared_stream.h"

#include <string>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

namespace bulkhead {
namespace {

// Two ranks' calls to one process, with what went into the stream.
class Shared {
 public:
  explicit Shared(const std::string& scope, bool steers = true)
      : stream(
            {0, 1}, route(scope, steers),
            {[this](SharedCall call) {
               submitted.push_back(call.hook + " of rank " + std::to_string(call.context.rank.value_or(-1)));
               return Seq(static_cast<std::int64_t>(submitted.size()));
             },
             [this](Seq seq, Batch) { supplied.push_back(seq.value); },
             [this](Seq seq) { wanted.push_back(seq.value); }},
            [this](std::int64_t rank, std::int64_t number, Outcome) { settled.emplace_back(rank, number); }) {
  }

  std::int64_t call(std::int64_t rank, const std::string& hook) {
    SharedCall call;
    call.hook = hook;
    call.context.rank = rank;
    return stream.call(rank, std::move(call));
  }

  std::vector<std::string> submitted;
  std::vector<std::int64_t> supplied, wanted;
  std::vector<std::pair<std::int64_t, std::int64_t>> settled;  // (rank, number)
  SharedStream stream;

 private:
  static PluginRoute route(const std::string& scope, bool steers) {
    PluginRoute route;
    route.config.scope = scope;
    route.traits.steers = steers;
    return route;
  }
};

using Calls = std::vector<std::string>;

TEST(SharedStream, PutsTheCallsOfAPositionInRankOrderWhoeverComesFirst) {
  Shared shared("node");
  shared.call(1, "on_step_end");
  EXPECT_TRUE(shared.submitted.empty());
  shared.call(1, "should_stop");
  shared.call(0, "on_step_end");
  EXPECT_EQ(shared.submitted, (Calls{"on_step_end of rank 0", "on_step_end of rank 1"}));
  shared.call(0, "should_stop");
  EXPECT_EQ(shared.submitted.size(), 4u);
  EXPECT_EQ(shared.submitted[3], "should_stop of rank 1");
}

TEST(SharedStream, InJobScopeOnlyTransformsAreEveryRanks) {
  Shared shared("job");
  shared.call(0, "on_step_end");
  EXPECT_EQ(shared.submitted, Calls{"on_step_end of rank 0"});
  shared.call(0, "transform_train_batch");
  shared.call(0, "on_step_end");
  EXPECT_EQ(shared.submitted.size(), 1u) << "the second step end overtook a transform";
  shared.call(1, "transform_train_batch");
  EXPECT_EQ(shared.submitted, (Calls{"on_step_end of rank 0", "transform_train_batch of rank 0",
                                     "transform_train_batch of rank 1", "on_step_end of rank 0"}));
}

TEST(SharedStream, StateIsAskedForOnce) {
  Shared shared("node");
  shared.call(0, "state_dict");
  EXPECT_EQ(shared.submitted, Calls{"state_dict of rank 0"});
}

TEST(SharedStream, ARankThatPassesLeavesThePositionToTheOthers) {
  Shared shared("node");
  shared.call(0, "on_validate_step_end");
  shared.call(1, "");
  EXPECT_EQ(shared.submitted, Calls{"on_validate_step_end of rank 0"});
}

TEST(SharedStream, RemembersAWishThatCameBeforeTheCallWentIn) {
  Shared shared("node");
  const std::int64_t number = shared.call(1, "on_step_end");
  shared.stream.want(1, number);
  EXPECT_TRUE(shared.wanted.empty());
  shared.call(0, "on_step_end");
  EXPECT_EQ(shared.wanted, std::vector<std::int64_t>{2});
}

TEST(SharedStream, AnInputMayComeBeforeOrAfterTheCallWentIn) {
  Shared shared("node");
  const std::int64_t first = shared.call(1, "transform_train_batch");
  shared.stream.supply(1, first, {});
  const std::int64_t own = shared.call(0, "transform_train_batch");
  EXPECT_TRUE(shared.supplied.empty());
  shared.stream.supply(0, own, {});
  EXPECT_EQ(shared.supplied, std::vector<std::int64_t>{1});
}

TEST(SharedStream, SettlesEachCallForItsOwnRank) {
  Shared shared("node");
  shared.call(1, "on_step_end");
  shared.call(0, "on_step_end");
  shared.stream.settled(Seq{2}, {});
  shared.stream.settled(Seq{1}, {});
  EXPECT_EQ(shared.settled, (std::vector<std::pair<std::int64_t, std::int64_t>>{{1, 1}, {0, 1}}));
}

}  // namespace
}  // namespace bulkhead
