// Whether a plugin host that died is started again, and when: the run file's
// on_failure, `restarts` within `within`.
//
// No I/O, no thread, no clock: the caller says when it died and what time it
// is, so every rule here has a test that takes microseconds.
#pragma once

#include <span>
#include <string>

#include "protocol/clock.h"
#include "protocol/run_config.h"

namespace bulkhead {

struct RestartDecision {
  bool restart = false;
  Duration delay{};    // of a restart: wait this long first
  std::string reason;  // one clause for the record, e.g. "4 deaths within 300 s, 3 restarts allowed"
};

class RestartPolicy {
 public:
  explicit RestartPolicy(FailureConfig config) : config_(std::move(config)) {}

  // `deaths` in any order, the one just now included.  Those `within` ago or
  // longer no longer count; of n that count, n ≤ restarts gives a restart.
  // `in_a_row`: how many of the last served for less than kServes: the first
  // restart after those comes at once, then after 100 ms doubled each time, 5 s
  // at most.  Who has served is restarted at once.
  RestartDecision next(std::span<const TimePoint> deaths, TimePoint now, int in_a_row) const;

  static constexpr std::chrono::milliseconds kServes{250};

 private:
  FailureConfig config_;
};

}  // namespace bulkhead
