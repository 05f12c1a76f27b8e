// Where plugin hosts may run: off the CPUs on which ranks compute, as long as
// there are others and no rank waits for a plugin.  A host that wakes where a
// rank computes takes its time from every step.
//
// Binds nobody to a CPU of his own: two runs on one machine do not meet, and a
// rank that moves is followed.  No I/O, no clock.  The loop's thread.
#pragma once

#include <cstdint>
#include <map>

#include "protocol/clock.h"
#include "protocol/cpus.h"
#include "protocol/messages.h"

namespace bulkhead {

class CpuRoom {
 public:
  explicit CpuRoom(Cpus all) : all_(std::move(all)) {}

  // What a rank says with its heartbeats.
  void heard(std::int64_t rank, const CpuUse& use, TimePoint now);
  // The ranks begin anew.
  void forget() { ranks_.clear(); }
  Cpus for_hosts(TimePoint now) const;

 private:
  struct Rank {
    Cpus cpus;
    double waited_seconds = 0;
    TimePoint heard{};
    TimePoint waits_until{};
  };

  Cpus all_;
  std::map<std::int64_t, Rank> ranks_;
};

}  // namespace bulkhead
