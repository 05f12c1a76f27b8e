// The learning rate of a step: a pure function, so a resumed run needs no state
// for it.  Any thread.
#pragma once

#include <cstdint>

#include "protocol/run_config.h"

namespace bulkhead {

// The learning rate of optimizer step `step` (0-based) of `total_steps`.
//
// With W = warmup_steps and p = (step − W) / (total_steps − 1 − W), held in
// [0, 1]:
//   warm-up (step < W)  base_lr · (step + 1) / W, so the first step has
//                       base_lr / W and step W − 1 has base_lr
//   constant            base_lr
//   linear              base_lr + (min_lr − base_lr) · p
//   cosine              min_lr + (base_lr − min_lr) · (1 + cos πp) / 2
// The last step has min_lr.  Where no step is left after the warm-up's end to
// go down over (total_steps ≤ W + 1), and for constant, it stays at base_lr.
// Steps past total_steps keep the last step's value.
//
// The type has been checked with the run file; another one is our bug.
double lr_at(std::int64_t step, const ScheduleConfig& schedule, double base_lr, std::int64_t total_steps);

}  // namespace bulkhead
