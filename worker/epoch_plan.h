// How the micro-batches of an epoch are divided into optimizer steps, while
// plugins may change how many a step takes (protocol/README.md, rule 12).
//
// Steps are counted over the whole run; micro-batches within their epoch.
// Plain values, no torch; the same calls give the same plan on every rank.
#pragma once

#include <cstdint>
#include <vector>

#include "protocol/result.h"
#include "protocol/run_config.h"

namespace bulkhead {

class EpochPlan {
 public:
  // An epoch has `batches` micro-batches per rank, at least `accumulate` ≥ 1.
  EpochPlan(std::int64_t batches, std::int64_t accumulate);

  // An epoch begins with this step.
  void begin(std::int64_t first_step);

  // From `step` on, which is not before any step already asked about, a step
  // takes `accumulate` micro-batches: 1 to the whole epoch, what is above that
  // is taken for it.
  void set(std::int64_t step, std::int64_t accumulate);

  // Micro-batches of a step of this epoch, and the number of its first one.
  std::int64_t accumulate_of(std::int64_t step) const;
  std::int64_t first_batch_of(std::int64_t step) const;
  // The step after the epoch's last: what is left then does not fill a step.
  std::int64_t end_step() const;
  std::int64_t length() const { return end_step() - segments_.front().step; }

  Value to_json() const;
  Status load(const Value& json);

 private:
  struct Segment {
    std::int64_t step = 0;   // the first
    std::int64_t batch = 0;  // its first micro-batch
    std::int64_t accumulate = 1;
  };

  const Segment& segment_of(std::int64_t step) const;
  void lay_out();

  std::int64_t batches_;
  std::vector<Segment> segments_;  // ascending; the first begins the epoch
};

}  // namespace bulkhead
