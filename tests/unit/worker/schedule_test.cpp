#include "optim/schedule.h"

#include <gtest/gtest.h>

namespace bulkhead {
namespace {

TEST(Schedule, WarmsUpFromOneShareToTheBase) {
  const ScheduleConfig schedule{.type = "cosine", .warmup_steps = 4, .min_lr = 0};
  EXPECT_DOUBLE_EQ(lr_at(0, schedule, 1.0, 100), 0.25);
  EXPECT_DOUBLE_EQ(lr_at(3, schedule, 1.0, 100), 1.0);
  EXPECT_DOUBLE_EQ(lr_at(4, schedule, 1.0, 100), 1.0);
}

TEST(Schedule, StaysConstantAfterWarmup) {
  const ScheduleConfig schedule{.type = "constant", .warmup_steps = 2, .min_lr = 0.1};
  EXPECT_DOUBLE_EQ(lr_at(0, schedule, 0.6, 10), 0.3);
  for (std::int64_t step = 1; step < 20; ++step) EXPECT_DOUBLE_EQ(lr_at(step, schedule, 0.6, 10), 0.6);
}

TEST(Schedule, FallsOnALineToTheSmallestAtTheLastStep) {
  const ScheduleConfig schedule{.type = "linear", .warmup_steps = 0, .min_lr = 0.1};
  EXPECT_DOUBLE_EQ(lr_at(0, schedule, 1.1, 11), 1.1);
  EXPECT_DOUBLE_EQ(lr_at(5, schedule, 1.1, 11), 0.6);
  EXPECT_DOUBLE_EQ(lr_at(10, schedule, 1.1, 11), 0.1);
  EXPECT_DOUBLE_EQ(lr_at(99, schedule, 1.1, 11), 0.1);
}

TEST(Schedule, FallsAsACosineToTheSmallestAtTheLastStep) {
  const ScheduleConfig schedule{.type = "cosine", .warmup_steps = 10, .min_lr = 0.2};
  EXPECT_DOUBLE_EQ(lr_at(10, schedule, 1.0, 111), 1.0);
  EXPECT_NEAR(lr_at(60, schedule, 1.0, 111), 0.6, 1e-12);
  EXPECT_NEAR(lr_at(110, schedule, 1.0, 111), 0.2, 1e-12);
  for (std::int64_t step = 11; step < 111; ++step) {
    EXPECT_LT(lr_at(step, schedule, 1.0, 111), lr_at(step - 1, schedule, 1.0, 111));
  }
}

TEST(Schedule, HasTheBaseWhereNoStepIsLeftToFall) {
  const ScheduleConfig schedule{.type = "cosine", .warmup_steps = 0, .min_lr = 0};
  EXPECT_DOUBLE_EQ(lr_at(0, schedule, 0.5, 1), 0.5);
  const ScheduleConfig long_warmup{.type = "linear", .warmup_steps = 50, .min_lr = 0};
  EXPECT_DOUBLE_EQ(lr_at(9, long_warmup, 0.5, 10), 0.1);
}

}  // namespace
}  // namespace bulkhead
