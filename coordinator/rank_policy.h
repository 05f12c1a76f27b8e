// What follows when ranks fail: all start again from the last checkpoint, or
// the run has failed, and which of several failures was the first cause.
//
// No I/O, no thread, no clock; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "protocol/clock.h"

namespace bulkhead {

struct RankFailure {
  TimePoint time;
  std::int64_t rank = 0;
  bool death = false;   // its process ended; else the rank reported the failure itself
  std::string reason;   // "SIGKILL", "exit 1", or what it reported
  bool agreed = false;  // reported, and all ranks end for the same reason at the same step
};

struct RankDecision {
  bool restart = false;
  RankFailure cause;
  std::string reason;  // for the run's record: rank, cause, and why no restart
};

// `failures` is not empty and has one entry for each rank that failed.  A death
// comes before every report: a rank whose peer died reports a broken
// collective, which is a consequence.  Where every rank reports a failure by
// itself they agreed on it, and starting again would bring the same; so it is
// where one report says that they agreed (an exception of a plugin's `raises`),
// whatever became of the others afterwards.
RankDecision decide_ranks(std::span<const RankFailure> failures, std::int64_t ranks,
                          std::int64_t restarts_left);

}  // namespace bulkhead
