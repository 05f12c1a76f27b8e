// The scale of an fp16 run's loss, which keeps small gradients above float16's
// smallest number: torch.amp.GradScaler's rules and numbers.
//
// A plain value that moves with the training state.  The gradients are those of
// all ranks by the time they are looked at, so every rank decides the same.
#pragma once

#include <cstdint>

#include "protocol/result.h"

namespace bulkhead {

struct LossScale {
  static constexpr double kFirst = 65536;
  static constexpr double kGrowth = 2;
  static constexpr double kBackoff = 0.5;
  static constexpr std::int64_t kGrowthInterval = 2000;  // finite steps in a row
  // Below it a run is given up: gradients that overflow even then were not finite
  // in the first place.
  static constexpr double kSmallest = 1.0 / 65536;

  double scale = kFirst;
  std::int64_t finite_steps = 0;   // since the scale changed
  std::int64_t skipped_steps = 0;  // since the run began

  // After a step's gradients: whether they are finite says what the next step's
  // scale is, and whether this step is made (else it is skipped, and counted).
  // Fails below kSmallest.
  Status update(bool finite);
};

}  // namespace bulkhead
