// Thousands of runs in which processes die, hang, start slowly and are heard of
// late: each must give what the undisturbed run gives.
//
// BULKHEAD_SIMULATION_SEED=N runs that one alone; BULKHEAD_SIMULATION_RUNS=N as
// many from seed 0.
#include <cstdlib>
#include <iostream>

#include <gtest/gtest.h>

#include "integration/simulation/world.h"

namespace bulkhead::simulation {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr std::uint64_t kRuns = 300;
#else
constexpr std::uint64_t kRuns = 2000;
#endif

std::optional<std::uint64_t> number_in(const char* variable) {
  const char* text = std::getenv(variable);
  return text == nullptr ? std::nullopt : std::optional<std::uint64_t>(std::strtoull(text, nullptr, 10));
}

Result run(std::uint64_t seed, bool faults) { return World({.seed = seed, .faults = faults}).run(); }

TEST(Simulation, DisturbedRunsTrainWhatTheUndisturbedOneDoes) {
  const Result whole = run(0, false);
  ASSERT_EQ(whole.broken, "");
  ASSERT_EQ(whole.status, "completed");
  ASSERT_EQ(whole.trained[0].size(), 24U);
  ASSERT_EQ(whole.states.size(), 4U);
  const auto one = number_in("BULKHEAD_SIMULATION_SEED");
  const std::uint64_t first = one.value_or(0);
  const std::uint64_t end = one ? first + 1 : number_in("BULKHEAD_SIMULATION_RUNS").value_or(kRuns);
  int deaths = 0;
  for (std::uint64_t seed = first; seed < end; ++seed) {
    const Result disturbed = run(seed, true);
    deaths += disturbed.deaths;
    ASSERT_EQ(disturbed.broken, "") << "BULKHEAD_SIMULATION_SEED=" << seed;
    ASSERT_EQ(disturbed.status, "completed") << "BULKHEAD_SIMULATION_SEED=" << seed;
    ASSERT_EQ(disturbed.trained, whole.trained) << "BULKHEAD_SIMULATION_SEED=" << seed;
    ASSERT_EQ(disturbed.states, whole.states) << "BULKHEAD_SIMULATION_SEED=" << seed;
  }
  std::cout << deaths << " deaths in " << end - first << " runs\n";
  if (!one) {
    EXPECT_GT(deaths, static_cast<int>(end - first)) << "faults are met";
  }
}

TEST(Simulation, IsTheSameAgainForASeed) {
  for (const std::uint64_t seed : {1U, 2U, 3U}) {
    const Result once = run(seed, true);
    const Result again = run(seed, true);
    EXPECT_EQ(once.deaths, again.deaths);
    EXPECT_EQ(once.trained, again.trained);
  }
}

}  // namespace
}  // namespace bulkhead::simulation
