#include "epoch_plan.h"

#include <gtest/gtest.h>

namespace bulkhead {
namespace {

TEST(EpochPlan, DividesAnEpochIntoStepsAndDropsWhatFillsNone) {
  const EpochPlan plan(10, 3);
  EXPECT_EQ(plan.length(), 3);
  EXPECT_EQ(plan.end_step(), 3);
  EXPECT_EQ(plan.first_batch_of(2), 6);
  EXPECT_EQ(plan.accumulate_of(2), 3);
}

TEST(EpochPlan, TakesTheNewNumberFromItsStepOn) {
  EpochPlan plan(10, 1);
  plan.set(4, 2);
  EXPECT_EQ(plan.accumulate_of(3), 1);
  EXPECT_EQ(plan.accumulate_of(4), 2);
  EXPECT_EQ(plan.first_batch_of(5), 6);
  EXPECT_EQ(plan.end_step(), 7);
}

TEST(EpochPlan, AnEpochBeginsWithTheNumberInEffect) {
  EpochPlan plan(10, 1);
  plan.set(4, 2);
  plan.begin(7);
  EXPECT_EQ(plan.first_batch_of(7), 0);
  EXPECT_EQ(plan.accumulate_of(7), 2);
  EXPECT_EQ(plan.end_step(), 12);
}

TEST(EpochPlan, AChangeThatLiesBehindTheEpochsEndWaitsForTheNextEpoch) {
  EpochPlan plan(10, 5);
  plan.set(3, 2);
  EXPECT_EQ(plan.end_step(), 2);
  plan.begin(2);
  EXPECT_EQ(plan.accumulate_of(2), 5);
  EXPECT_EQ(plan.accumulate_of(3), 2);
  EXPECT_EQ(plan.end_step(), 5);  // 5, 2, 2: one is left
}

TEST(EpochPlan, TheLaterWordForAStepCounts) {
  EpochPlan plan(10, 1);
  plan.set(4, 2);
  plan.set(3, 5);
  EXPECT_EQ(plan.accumulate_of(4), 5);
  EXPECT_EQ(plan.end_step(), 4);  // 1, 1, 1, 5
}

TEST(EpochPlan, ASmallerNumberUsesWhatWasLeft) {
  EpochPlan plan(10, 4);
  EXPECT_EQ(plan.end_step(), 2);
  plan.set(2, 1);
  EXPECT_EQ(plan.end_step(), 4);
}

TEST(EpochPlan, TakesAWholeEpochForMoreThanAnEpoch) {
  EpochPlan plan(10, 1);
  plan.set(0, 99);
  EXPECT_EQ(plan.accumulate_of(0), 10);
  EXPECT_EQ(plan.length(), 1);
}

TEST(EpochPlan, ComesBackFromItsCheckpoint) {
  EpochPlan plan(10, 3);
  plan.begin(6);
  plan.set(7, 2);
  EpochPlan other(10, 1);
  ASSERT_TRUE(other.load(plan.to_json()).ok());
  EXPECT_EQ(other.end_step(), plan.end_step());
  EXPECT_EQ(other.first_batch_of(8), plan.first_batch_of(8));
}

TEST(EpochPlan, RefusesWhatIsNoPlan) {
  EpochPlan plan(10, 1);
  EXPECT_FALSE(plan.load(Value::array()).ok());
  EXPECT_FALSE(plan.load(Value{{{"x", 1}}}).ok());
  EXPECT_FALSE(plan.load(Value::array({Value::array({0, 0})})).ok());
}

}  // namespace
}  // namespace bulkhead
