// The last layer of a language model and its cross entropy, as one operation:
// the scores, the largest thing of a training step, exist once, in the short
// type, and their gradient takes their place.
//
// On a GPU with kernels (kernels.h) in one pass over them; elsewhere the same
// function by torch's operations.  The compute thread.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "ops/linear.h"

namespace bulkhead {

struct HeadLoss {
  at::Tensor loss;     // mean over `count` labels, in nats: float32, 0-dim, differentiable
  at::Tensor correct;  // labels that were the first choice: int64, 0-dim, no gradient
};

// x [rows,in], weight [classes,in], labels int64 [rows], of which those of −100
// do not count; `count`: those that do, at least 1.
HeadLoss head_loss(const at::Tensor& x, const Factor& weight, const at::Tensor& labels, std::int64_t count);

}  // namespace bulkhead
