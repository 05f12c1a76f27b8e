// The one building block of all models: a module with a weight and perhaps a
// bias, and the operations on it.
//
// Instead of torch::nn::Linear and friends, because those cost compile time and
// nn::Linear's forward takes a slow bias path on 3-D input.  The names in
// checkpoints are the same.  Compute thread only.
#pragma once

#include <cstdint>
#include <memory>

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include "ops/linear.h"

namespace bulkhead {

struct Layer : torch::nn::Module {
  Layer(at::Tensor initial_weight, at::Tensor initial_bias);

  // What a product in `type` takes.
  Factor weight_as(at::ScalarType type) const;
  Factor bias_as(at::ScalarType type) const;

  at::Tensor weight;
  at::Tensor bias;  // undefined where there is none

  // The same numbers in the compute type, where somebody keeps them up to date
  // (make_working_copies); undefined: they are made for each product.
  at::Tensor working_weight, working_bias;
};

using LayerPtr = std::shared_ptr<Layer>;

// A CPU generator that depends on the seed alone.
at::Generator make_generator(std::int64_t seed);

// Weight [shape…] from N(0, std); bias, if any, zero and as long as shape[0].
LayerPtr normal_layer(at::IntArrayRef shape, double std, bool with_bias, const at::Generator& generator);

// Weight from U(−b, b), b = gain·√(3 / fan_in), so with standard deviation
// gain/√fan_in (fan_in = numbers that each output sums over); bias zero.  A gain
// of √2 keeps the scale through ReLU (He et al. 2015).
LayerPtr uniform_layer(at::IntArrayRef shape, double gain, const at::Generator& generator);

// Weight one, bias zero.
LayerPtr norm_layer(std::int64_t width);

// x W' + b with operands in compute_type; [..., in] → [..., out].  In a
// shorter type as one operation (ops/linear.h).
at::Tensor apply_linear(const Layer& layer, const at::Tensor& x, at::ScalarType compute_type);

// 3×3 convolution, stride 1, same size, with operands in compute_type:
// [N,C,H,W] → [N,O,H,W].
at::Tensor apply_conv3x3(const Layer& layer, const at::Tensor& x, at::ScalarType compute_type);

// Group norm (Wu and He 2018) over `groups` groups of the channels of [N,C,H,W],
// in float32; ε = 1e-5.
at::Tensor apply_group_norm(const Layer& layer, const at::Tensor& x, std::int64_t groups);

// Layer norm over the last dimension, in float32; ε = 1e-5.
at::Tensor apply_norm(const Layer& layer, const at::Tensor& x);

// The residual stream of a transformer between two blocks' parts.
struct Residual {
  at::Tensor stream;       // float32 [..., width]
  at::Tensor branch;       // still to be added to it, in the compute type; undefined: nothing
  at::Tensor branch_bias;  // that of the layer whose output `branch` is, where its gradient has been left to
                           // whoever adds it; else undefined

  // Both together, float32.
  at::Tensor sum() const;
};

// Adds the branch to the stream, and returns the stream's layer norm in
// compute_type.
at::Tensor apply_add_norm(const Layer& layer, Residual& residual, at::ScalarType compute_type);

// Linear, GELU (tanh form), linear, with operands in compute_type:
// [..., in] → [..., out].
at::Tensor apply_gelu_network(const Layer& in, const Layer& out, const at::Tensor& x,
                              at::ScalarType compute_type);

// The same two as the stream's next branch, in bfloat16 with the gradient of the
// last bias left to whoever adds it.
void branch_linear(Residual& residual, const Layer& layer, const at::Tensor& x, at::ScalarType compute_type);
void branch_gelu_network(Residual& residual, const Layer& in, const Layer& out, const at::Tensor& x,
                         at::ScalarType compute_type);

// Causal self-attention over what `layer` (of three times the width) makes of x
// [N,T,width]: [N,T,width] in compute_type.
at::Tensor apply_attention(const Layer& layer, const at::Tensor& x, std::int64_t heads,
                           at::ScalarType compute_type);

// Rows of the tables for each token and its position: [N,T] → float32 [N,T,width].
at::Tensor apply_embedding(const Layer& tokens, const Layer& positions, const at::Tensor& input_ids,
                           at::ScalarType compute_type);

}  // namespace bulkhead
