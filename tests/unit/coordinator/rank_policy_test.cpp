#include "rank_policy.h"

#include <vector>

#include <gtest/gtest.h>

namespace bulkhead {
namespace {

TimePoint at(int seconds) { return TimePoint(std::chrono::seconds(seconds)); }

TEST(RankPolicy, RestartsWhileRestartsAreLeft) {
  const std::vector<RankFailure> failures{{at(1), 1, true, "SIGKILL"}};
  EXPECT_TRUE(decide_ranks(failures, 2, 1).restart);
  EXPECT_FALSE(decide_ranks(failures, 2, 0).restart);
}

TEST(RankPolicy, BlamesTheFirstDeathAndNoReportBeforeIt) {
  const std::vector<RankFailure> failures{
      {at(1), 0, false, "a collective broke"}, {at(3), 2, true, "exit 1"}, {at(2), 1, true, "SIGSEGV"}};
  const RankDecision decision = decide_ranks(failures, 4, 0);
  EXPECT_EQ(decision.cause.rank, 1);
  EXPECT_TRUE(decision.reason.starts_with("rank 1 ended: SIGSEGV"));
}

TEST(RankPolicy, TakesAFailureThatEveryRankReportsAsTheRunsOwn) {
  const std::vector<RankFailure> failures{{at(2), 1, false, "ValueError"}, {at(1), 0, false, "ValueError"}};
  const RankDecision decision = decide_ranks(failures, 2, 5);
  EXPECT_FALSE(decision.restart);
  EXPECT_EQ(decision.reason, "ValueError");
}

TEST(RankPolicy, RestartsWhereOnlySomeRanksReportAFailure) {
  const std::vector<RankFailure> failures{{at(2), 1, false, "the disk is full"}};
  EXPECT_TRUE(decide_ranks(failures, 2, 1).restart);
  EXPECT_EQ(decide_ranks(failures, 2, 1).reason, "rank 1 failed: the disk is full");
}

TEST(RankPolicy, TakesOneReportOfAnAgreedFailureForAllWhateverElseHappened) {
  const std::vector<RankFailure> failures{{at(1), 0, true, "SIGKILL"},
                                          {at(2), 2, false, "early: ValueError: b", true},
                                          {at(3), 1, false, "early: ValueError: a", true}};
  const RankDecision decision = decide_ranks(failures, 3, 5);
  EXPECT_FALSE(decision.restart);
  EXPECT_EQ(decision.reason, "early: ValueError: a") << "the lowest rank's";
}

}  // namespace
}  // namespace bulkhead
