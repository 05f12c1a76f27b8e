#include "step_times.h"

#include <cstdlib>

#include <gtest/gtest.h>

namespace bulkhead {
namespace {

TEST(StepTimes, AreReportedInMilliseconds) {
  StepTimes times;
  EXPECT_TRUE(times.report().is_null());
  for (int i = 1; i <= 100; ++i) times.add(i * 0.001);
  const Value report = times.report();
  EXPECT_NEAR(report.at("p50").get<double>(), 50, 1e-4);
  EXPECT_NEAR(report.at("p99").get<double>(), 99, 1e-4);
  EXPECT_EQ(report.at("n"), 100);
}

TEST(StepTimes, AreThoseOfTheNewestSteps) {
  StepTimes times;
  for (int i = 0; i < 5000; ++i) times.add(1);
  for (int i = 0; i < 4096; ++i) times.add(0.002);
  EXPECT_NEAR(times.report().at("p99").get<double>(), 2, 1e-4);
}

TEST(QuietBlocks, TakeTurns) {
  EXPECT_FALSE(QuietBlocks{}.is_quiet(7));
  EXPECT_TRUE(QuietBlocks{}.is_settled(7));
  const QuietBlocks blocks{10};
  EXPECT_FALSE(blocks.is_quiet(9));
  EXPECT_TRUE(blocks.is_quiet(10));
  EXPECT_TRUE(blocks.is_quiet(19));
  EXPECT_FALSE(blocks.is_quiet(20));
  EXPECT_FALSE(blocks.is_settled(12));
  EXPECT_TRUE(blocks.is_settled(13));
}

}  // namespace
}  // namespace bulkhead
