#include "restart_policy.h"

#include <vector>

#include <gtest/gtest.h>

namespace bulkhead {
namespace {

using namespace std::chrono_literals;

TimePoint at(double seconds) {
  return TimePoint(std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds)));
}

struct Row {
  const char* name;
  std::int64_t restarts;
  double within;
  std::vector<double> deaths;  // seconds; the last is now
  int in_a_row;
  bool restart;
  Duration delay;
};

class RestartPolicyTable : public testing::TestWithParam<Row> {};

TEST_P(RestartPolicyTable, Holds) {
  const Row& row = GetParam();
  std::vector<TimePoint> deaths;
  for (const double death : row.deaths) deaths.push_back(at(death));
  const RestartPolicy policy({.restarts = row.restarts, .within_seconds = row.within, .then = "disable"});
  const RestartDecision decision = policy.next(deaths, deaths.back(), row.in_a_row);
  EXPECT_EQ(decision.restart, row.restart) << decision.reason;
  if (row.restart) {
    EXPECT_EQ(decision.delay, row.delay);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Rows, RestartPolicyTable,
    testing::Values(Row{"FirstDeathRestartsAtOnce", 3, 300, {10}, 1, true, 0ms},
                    Row{"SecondInARowWaits100Ms", 3, 300, {10, 11}, 2, true, 100ms},
                    Row{"ThirdInARowWaits200Ms", 3, 300, {10, 11, 12}, 3, true, 200ms},
                    Row{"WhoHasServedDoesNotWait", 3, 300, {10, 11, 12}, 0, true, 0ms},
                    Row{"FirstAfterThatDoesNotWaitEither", 3, 300, {10, 11, 12}, 1, true, 0ms},
                    Row{"FourthIsOneTooMany", 3, 300, {10, 11, 12, 13}, 0, false, {}},
                    Row{"NoRestartsAllowed", 0, 300, {10}, 1, false, {}},
                    Row{"OneRestartAllowed", 1, 300, {10}, 1, true, 0ms},
                    Row{"OneRestartSpent", 1, 300, {10, 20}, 0, false, {}},
                    Row{"OldDeathsSlideOut", 1, 300, {10, 400}, 1, true, 0ms},
                    Row{"JustInsideTheWindowCounts", 1, 300, {10, 309.999}, 1, false, {}},
                    Row{"ExactlyTheWindowAgoCountsNoMore", 1, 300, {10, 310}, 1, true, 0ms},
                    Row{"BackOffIsCappedAt5S", 100, 300, {1, 2, 3}, 1000, true, 5s},
                    Row{"OrderDoesNotMatter", 3, 300, {12, 10, 11}, 3, true, 200ms}),
    [](const auto& row) { return row.param.name; });

TEST(RestartPolicy, SaysWhyInAClause) {
  const std::vector<TimePoint> deaths{at(1), at(2)};
  EXPECT_EQ(
      RestartPolicy({.restarts = 1, .within_seconds = 0.5, .then = "abort"}).next(deaths, at(2), 1).reason,
      "1 death within 0.5 s, 1 restart allowed");
  EXPECT_EQ(
      RestartPolicy({.restarts = 0, .within_seconds = 60, .then = "abort"}).next(deaths, at(2), 1).reason,
      "2 deaths within 60 s, 0 restarts allowed");
}

TEST(RestartPolicy, TakesAWindowOfYears) {
  const std::vector<TimePoint> deaths{at(1), at(1e6)};
  EXPECT_FALSE(RestartPolicy({.restarts = 1, .within_seconds = 1e12, .then = "abort"})
                   .next(deaths, at(1e6), 1)
                   .restart);
}

}  // namespace
}  // namespace bulkhead
