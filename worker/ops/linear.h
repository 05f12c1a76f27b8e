// Products with weights that are kept in float32 and multiplied in a shorter
// type: linear, and the two-layer GELU network of a transformer.
//
// Each is one autograd operation: no casts of parameters, no copies of their
// gradients, and on a GPU with kernels (kernels.h) bias and GELU ride on the
// products.  Elsewhere the same function by torch's operations.  The compute
// thread.
#pragma once

#include <ATen/core/Tensor.h>

namespace bulkhead {

// A parameter and what it is multiplied as: the same numbers in the type of x.
// Gradients go to the parameter (gradient_sum.h).
struct Factor {
  at::Tensor parameter;  // float32
  at::Tensor working;
};

// A bias whose gradient is left to whatever takes the product next, and reads the
// product's gradient anyway: add_norm.h, attention.h, or with_bias_gradient().
inline Factor left_out(const Factor& bias) { return {bias.parameter.detach(), bias.working}; }

// x itself, whose gradient's sum over rows is that of the bias [columns] of x
// [..., columns].
at::Tensor with_bias_gradient(const at::Tensor& x, const at::Tensor& bias);

// x [rows,in], weight [out,in], bias [out] or both of its tensors undefined:
// x weight' + bias, [rows,out] in the type of x.
at::Tensor linear(const at::Tensor& x, const Factor& weight, const Factor& bias);

// GELU in its tanh form between two linears: x [rows,in], weights [inner,in] and
// [out,inner], to [rows,out].
at::Tensor gelu_network(const at::Tensor& x, const Factor& weight_in, const Factor& bias_in,
                        const Factor& weight_out, const Factor& bias_out);

}  // namespace bulkhead
