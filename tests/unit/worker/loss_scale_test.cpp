#include "loss_scale.h"

#include <gtest/gtest.h>

namespace bulkhead {
namespace {

TEST(LossScale, IsHalvedByAStepThatIsNotFiniteWhichIsSkipped) {
  LossScale scale;
  EXPECT_TRUE(scale.update(true).ok());
  EXPECT_TRUE(scale.update(false).ok());
  EXPECT_EQ(scale.scale, 32768);
  EXPECT_EQ(scale.skipped_steps, 1);
  EXPECT_EQ(scale.finite_steps, 0);
}

TEST(LossScale, IsDoubledAfterTwoThousandFiniteStepsInARow) {
  LossScale scale;
  for (int step = 0; step < 1999; ++step) ASSERT_TRUE(scale.update(true).ok());
  EXPECT_EQ(scale.scale, 65536);
  EXPECT_TRUE(scale.update(true).ok());
  EXPECT_EQ(scale.scale, 131072);
  for (int step = 0; step < 1999; ++step) ASSERT_TRUE(scale.update(true).ok());
  EXPECT_TRUE(scale.update(false).ok());
  EXPECT_TRUE(scale.update(true).ok());
  EXPECT_EQ(scale.scale, 65536);
}

TEST(LossScale, GivesUpWhereNoScaleHelps) {
  LossScale scale;
  Status status = ok_status();
  int steps = 0;
  for (; status && steps < 1000; ++steps) status = scale.update(false);
  EXPECT_EQ(steps, 33);
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.error().message.find("train.precision: fp16"), std::string::npos);
}

}  // namespace
}  // namespace bulkhead
