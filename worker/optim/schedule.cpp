#include "optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "protocol/result.h"

namespace bulkhead {
namespace {

// 0 at the first step after warm-up, 1 at the last step.
double progress(std::int64_t step, std::int64_t warmup_steps, std::int64_t total_steps) {
  const std::int64_t span = total_steps - 1 - warmup_steps;
  if (span <= 0) return 0;
  return std::clamp(static_cast<double>(step - warmup_steps) / static_cast<double>(span), 0.0, 1.0);
}

}  // namespace

double lr_at(std::int64_t step, const ScheduleConfig& schedule, double base_lr, std::int64_t total_steps) {
  CHECK(step >= 0 && schedule.warmup_steps >= 0);
  if (step < schedule.warmup_steps) {
    return base_lr * static_cast<double>(step + 1) / static_cast<double>(schedule.warmup_steps);
  }
  const double p = progress(step, schedule.warmup_steps, total_steps);
  if (schedule.type == "linear") return std::lerp(base_lr, schedule.min_lr, p);
  if (schedule.type == "cosine") {
    return schedule.min_lr + (base_lr - schedule.min_lr) * 0.5 * (1 + std::cos(std::numbers::pi * p));
  }
  CHECK(schedule.type == "constant", schedule.type);
  return base_lr;
}

}  // namespace bulkhead
