// Time that moves only when a test says so.  An event loop over it never
// blocks: advance(), then run_ready().  Any thread.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#include "protocol/clock.h"

namespace bulkhead {

class FakeClock final : public Clock {
 public:
  TimePoint now() const override { return TimePoint(Duration(nanoseconds_.load())); }
  // 1 January 2024 at the beginning.
  double wall_seconds() const override {
    return 1704067200.0 + std::chrono::duration<double>(Duration(nanoseconds_.load())).count();
  }
  bool is_real() const override { return false; }

  void advance(Duration by) { nanoseconds_ += by.count(); }

 private:
  std::atomic<std::int64_t> nanoseconds_{0};
};

}  // namespace bulkhead
