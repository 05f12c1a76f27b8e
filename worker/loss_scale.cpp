#include "loss_scale.h"

namespace bulkhead {

Status LossScale::update(bool finite) {
  if (!finite) {
    scale *= kBackoff;
    finite_steps = 0;
    ++skipped_steps;
    if (scale >= kSmallest) return ok_status();
    return Error{ErrorCode::kFailed,
                 "train.precision: fp16: the gradients are not finite, however small the loss is "
                 "scaled; train.precision bf16 or fp32, or a smaller optimizer.lr, may help"};
  }
  if (++finite_steps == kGrowthInterval) {
    scale *= kGrowth;
    finite_steps = 0;
  }
  return ok_status();
}

}  // namespace bulkhead
