// Activation checkpointing (Chen et al. 2016): a part of a model keeps what goes
// into it alone, and is computed again in backward.
//
// The same operations on the same numbers, so the same bits.  A parameter may
// take part in one such part only, or its gradient would be reduced twice.  The
// compute thread and autograd's, one at a time.
#pragma once

#include <functional>

#include "models/layer.h"

namespace bulkhead {

// residual becomes what `part` makes of it.  `part` is kept until backward, with
// what it holds; it must be a function of the residual and of parameters.
void recomputed(Residual& residual, std::function<void(Residual&)> part);

}  // namespace bulkhead
