// Time, as an interface so that tests can move it.  Any thread.
#pragma once

#include <chrono>

namespace bulkhead {

using Duration = std::chrono::nanoseconds;
using TimePoint = std::chrono::time_point<std::chrono::steady_clock, Duration>;

class Clock {
 public:
  virtual ~Clock() = default;
  // Monotonic time.
  virtual TimePoint now() const = 0;
  // Seconds since the Unix epoch, for records that people read.
  virtual double wall_seconds() const = 0;
  // False where time only moves when a test says so: an event loop then never
  // blocks.
  virtual bool is_real() const = 0;
};

// The real clock; one per process is enough, lives for ever.
const Clock& steady_clock();

}  // namespace bulkhead
