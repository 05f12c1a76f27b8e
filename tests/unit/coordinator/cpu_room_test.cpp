#include "cpu_room.h"

#include <gtest/gtest.h>

namespace bulkhead {
namespace {

using namespace std::chrono_literals;

constexpr TimePoint now(2s);

CpuUse use(std::vector<std::int64_t> cpus, double waited) { return {Generation(1), std::move(cpus), waited}; }

TEST(CpuRoom, LeavesHostsWhatRanksDoNotComputeOn) {
  CpuRoom room({0, 1, 2, 3});
  EXPECT_EQ(room.for_hosts(now), (Cpus{0, 1, 2, 3}));
  room.heard(0, use({2}, 0), TimePoint(1s));
  room.heard(1, use({0}, 0), TimePoint(1s));
  EXPECT_EQ(room.for_hosts(now), (Cpus{1, 3}));
  room.heard(0, use({3}, 0), TimePoint(2s));
  EXPECT_EQ(room.for_hosts(now), (Cpus{1, 2})) << "a rank that moved is followed";
}

TEST(CpuRoom, IsAllThereIsWhereRanksComputeEverywhere) {
  CpuRoom room({0, 1});
  room.heard(0, use({0}, 0), TimePoint(1s));
  room.heard(1, use({1}, 0), TimePoint(1s));
  EXPECT_EQ(room.for_hosts(now), (Cpus{0, 1}));
}

TEST(CpuRoom, IsAllThereIsWhileARankWaitsForAPlugin) {
  CpuRoom room({0, 1});
  room.heard(0, use({0}, 0.0), TimePoint(1s));
  EXPECT_EQ(room.for_hosts(now), Cpus{1});
  room.heard(0, use({0}, 0.2), TimePoint(2s));
  EXPECT_EQ(room.for_hosts(now), (Cpus{0, 1})) << "a fifth of the last second";
  room.heard(0, use({0}, 0.21), TimePoint(3s));
  EXPECT_EQ(room.for_hosts(TimePoint(31s)), (Cpus{0, 1})) << "it is believed for a while";
  EXPECT_EQ(room.for_hosts(TimePoint(32s)), Cpus{1});
}

TEST(CpuRoom, ForgetsRanksThatBeginAnew) {
  CpuRoom room({0, 1});
  room.heard(0, use({0}, 0), TimePoint(1s));
  room.forget();
  EXPECT_EQ(room.for_hosts(now), (Cpus{0, 1}));
}

}  // namespace
}  // namespace bulkhead
