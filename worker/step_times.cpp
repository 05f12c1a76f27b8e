#include "step_times.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

namespace bulkhead {

void StepTimes::add(double seconds) {
  if (seconds_.size() < kNewest) {
    seconds_.push_back(static_cast<float>(seconds));
  } else {
    seconds_[next_++ % kNewest] = static_cast<float>(seconds);
  }
}

Value StepTimes::report() const {
  if (seconds_.empty()) return nullptr;
  std::vector<float> sorted = seconds_;
  std::sort(sorted.begin(), sorted.end());
  const auto at = [&](double share) {
    const auto rank = std::ceil(share * static_cast<double>(sorted.size())) - 1;
    return 1e3 * static_cast<double>(sorted[static_cast<std::size_t>(std::max(rank, 0.0))]);
  };
  return {{"p50", at(0.50)}, {"p99", at(0.99)}, {"n", sorted.size()}};
}

QuietBlocks QuietBlocks::from_environment() {
  const char* steps = std::getenv("BULKHEAD_BENCH_QUIET_STEPS");
  return {steps == nullptr ? 0 : std::max<std::int64_t>(0, std::atoll(steps))};
}

}  // namespace bulkhead
