// How long steps take, for summary.json.  Compute thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "protocol/run_config.h"

namespace bulkhead {

// The newest steps' durations, without validations and saves.
class StepTimes {
 public:
  void add(double seconds);
  // Milliseconds: {"p50", "p99", "n"}; null before the first.
  Value report() const;

 private:
  static constexpr std::size_t kNewest = 4096;
  std::vector<float> seconds_;
  std::size_t next_ = 0;
};

// Blocks of steps by turns with and without the plugins' step hooks and
// transforms of batches, so that scripts/bench/hooks and transforms compare
// like with like: within one process, on the same memory, moments apart.  Never
// in a run that is for its own sake.
struct QuietBlocks {
  std::int64_t steps = 0;  // in a block; 0: there are none

  // From BULKHEAD_BENCH_QUIET_STEPS.
  static QuietBlocks from_environment();
  bool is_quiet(std::int64_t step) const { return steps > 0 && step / steps % 2 == 1; }
  // Its first steps still have the block before on their way.
  bool is_settled(std::int64_t step) const { return steps == 0 || step % steps >= 3; }
};

}  // namespace bulkhead
