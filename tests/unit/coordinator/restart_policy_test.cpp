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
  bool restart;
  Duration delay;
};

class RestartPolicyTable : public testing::TestWithParam<Row> {};

TEST_P(RestartPolicyTable, Holds) {
  const Row& row = GetParam();
  std::vector<TimePoint> deaths;
  for (const double death : row.deaths) deaths.push_back(at(death));
  const RestartPolicy policy({.restarts = row.restarts, .within_seconds = row.within, .then = "disable"});
  const RestartDecision decision = policy.next(deaths, deaths.back());
  EXPECT_EQ(decision.restart, row.restart) << decision.reason;
  if (row.restart) {
    EXPECT_EQ(decision.delay, row.delay);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Rows, RestartPolicyTable,
    testing::Values(Row{"FirstDeathRestartsAtOnce", 3, 300, {10}, true, 0ms},
                    Row{"SecondWaits100Ms", 3, 300, {10, 11}, true, 100ms},
                    Row{"ThirdWaits200Ms", 3, 300, {10, 11, 12}, true, 200ms},
                    Row{"FourthIsOneTooMany", 3, 300, {10, 11, 12, 13}, false, {}},
                    Row{"NoRestartsAllowed", 0, 300, {10}, false, {}},
                    Row{"OneRestartAllowed", 1, 300, {10}, true, 0ms},
                    Row{"OneRestartSpent", 1, 300, {10, 20}, false, {}},
                    Row{"OldDeathsSlideOut", 1, 300, {10, 400}, true, 0ms},
                    Row{"JustInsideTheWindowCounts", 1, 300, {10, 309.999}, false, {}},
                    Row{"ExactlyTheWindowAgoCountsNoMore", 1, 300, {10, 310}, true, 0ms},
                    Row{"BackOffFollowsRecentDeathsOnly", 3, 10, {1, 2, 3, 4, 20, 21}, true, 100ms},
                    Row{"BackOffIsCappedAt5S", 100, 300, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, true, 5s},
                    Row{"OrderDoesNotMatter", 3, 300, {12, 10, 11}, true, 200ms}),
    [](const auto& row) { return row.param.name; });

TEST(RestartPolicy, SaysWhyInAClause) {
  const std::vector<TimePoint> deaths{at(1), at(2)};
  EXPECT_EQ(RestartPolicy({.restarts = 1, .within_seconds = 0.5, .then = "abort"}).next(deaths, at(2)).reason,
            "1 death within 0.5 s, 1 restart allowed");
  EXPECT_EQ(RestartPolicy({.restarts = 0, .within_seconds = 60, .then = "abort"}).next(deaths, at(2)).reason,
            "2 deaths within 60 s, 0 restarts allowed");
}

TEST(RestartPolicy, TakesAWindowOfYears) {
  const std::vector<TimePoint> deaths{at(1), at(1e6)};
  EXPECT_FALSE(
      RestartPolicy({.restarts = 1, .within_seconds = 1e12, .then = "abort"}).next(deaths, at(1e6)).restart);
}

}  // namespace
}  // namespace bulkhead
