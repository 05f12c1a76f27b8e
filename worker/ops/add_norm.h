// The residual stream's step between two branches of a transformer, as one
// operation: what a branch put out is added, and the next branch gets the layer
// norm of the sum.
//
// On a GPU with kernels (kernels.h) the sum is read once for both; elsewhere the
// same function by torch's operations.  The compute thread.
#pragma once

#include <ATen/core/Tensor.h>

namespace bulkhead {

struct Normed {
  at::Tensor sum;     // x + branch, float32
  at::Tensor normed;  // its layer norm over the last dimension (ε = 1e-5), in the type asked for
};

// What is added: [rows,width] in the type of the norm; undefined: nothing.
struct Branch {
  at::Tensor value;
  at::Tensor bias;  // [width], of the linear that made it, where its gradient was left to be taken here
                    // (linear.h); else undefined
};

// x float32 [rows,width]; weight and bias float32 [width].  `type` is what the norm
// is rounded to.  Gradients of weight and biases go where gradient_sum.h says.
Normed add_norm(const at::Tensor& x, const Branch& branch, const at::Tensor& weight, const at::Tensor& bias,
                at::ScalarType type);

}  // namespace bulkhead
