#include "models/layer.h"

#include <cmath>
#include <utility>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/group_norm.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include "ops/add_norm.h"
#include "ops/attention.h"
#include "ops/embedding.h"

namespace bulkhead {
namespace {

constexpr double kNormEpsilon = 1e-5;

at::Tensor cast_if_defined(const at::Tensor& tensor, at::ScalarType type) {
  return tensor.defined() ? tensor.to(type) : tensor;
}

Factor factor(const at::Tensor& parameter, const at::Tensor& working, at::ScalarType type) {
  if (!parameter.defined()) return {};
  const bool kept = working.defined() && working.scalar_type() == type;
  return {parameter, kept ? working : parameter.detach().to(type)};
}

at::Tensor as_rows(const at::Tensor& x) { return x.reshape({-1, x.size(-1)}); }

std::vector<std::int64_t> with_last(const at::Tensor& x, std::int64_t last) {
  std::vector<std::int64_t> sizes = x.sizes().vec();
  sizes.back() = last;
  return sizes;
}

}  // namespace

Layer::Layer(at::Tensor initial_weight, at::Tensor initial_bias)
    : weight(register_parameter("weight", std::move(initial_weight))) {
  if (initial_bias.defined()) bias = register_parameter("bias", std::move(initial_bias));
}

Factor Layer::weight_as(at::ScalarType type) const { return factor(weight, working_weight, type); }
Factor Layer::bias_as(at::ScalarType type) const { return factor(bias, working_bias, type); }

at::Generator make_generator(std::int64_t seed) {
  return at::detail::createCPUGenerator(static_cast<std::uint64_t>(seed));
}

LayerPtr normal_layer(at::IntArrayRef shape, double std, bool with_bias, const at::Generator& generator) {
  at::Tensor weight = at::empty(shape, at::kFloat).normal_(0.0, std, generator);
  return std::make_shared<Layer>(weight, with_bias ? at::zeros({shape[0]}, at::kFloat) : at::Tensor());
}

LayerPtr uniform_layer(at::IntArrayRef shape, double gain, const at::Generator& generator) {
  at::Tensor weight = at::empty(shape, at::kFloat);
  const double bound = gain * std::sqrt(3.0 / static_cast<double>(weight.numel() / shape[0]));
  weight.uniform_(-bound, bound, generator);
  return std::make_shared<Layer>(weight, at::zeros({shape[0]}, at::kFloat));
}

LayerPtr norm_layer(std::int64_t width) {
  return std::make_shared<Layer>(at::ones({width}, at::kFloat), at::zeros({width}, at::kFloat));
}

at::Tensor apply_linear(const Layer& layer, const at::Tensor& x, at::ScalarType compute_type) {
  if (compute_type != at::kFloat) {
    const at::Tensor y =
        linear(as_rows(x.to(compute_type)), layer.weight_as(compute_type), layer.bias_as(compute_type));
    return y.view(with_last(x, y.size(-1)));
  }
  return at::linear(x.to(compute_type), layer.weight.to(compute_type),
                    cast_if_defined(layer.bias, compute_type));
}

at::Tensor apply_conv3x3(const Layer& layer, const at::Tensor& x, at::ScalarType compute_type) {
  return at::conv2d(x.to(compute_type), layer.weight.to(compute_type),
                    cast_if_defined(layer.bias, compute_type),
                    /*stride=*/1, /*padding=*/1);
}

at::Tensor apply_group_norm(const Layer& layer, const at::Tensor& x, std::int64_t groups) {
  return at::group_norm(x.to(at::kFloat), groups, layer.weight, layer.bias, kNormEpsilon);
}

at::Tensor apply_norm(const Layer& layer, const at::Tensor& x) {
  return at::layer_norm(x.to(at::kFloat), {x.size(-1)}, layer.weight, layer.bias, kNormEpsilon);
}

at::Tensor Residual::sum() const {
  if (!branch.defined()) return stream;
  return stream + (branch_bias.defined() ? with_bias_gradient(branch, branch_bias) : branch);
}

at::Tensor apply_add_norm(const Layer& layer, Residual& residual, at::ScalarType compute_type) {
  if (compute_type == at::kFloat) {
    residual = {residual.sum(), {}, {}};
    return apply_norm(layer, residual.stream);
  }
  const at::IntArrayRef sizes = residual.stream.sizes();
  const at::Tensor branch = residual.branch.defined() ? as_rows(residual.branch) : residual.branch;
  const Normed made = add_norm(as_rows(residual.stream), {branch, residual.branch_bias}, layer.weight,
                               layer.bias, compute_type);
  const at::Tensor normed = made.normed.view(sizes);
  residual = {made.sum.view(sizes), {}, {}};
  return normed;
}

at::Tensor apply_gelu_network(const Layer& in, const Layer& out, const at::Tensor& x,
                              at::ScalarType compute_type) {
  if (compute_type == at::kFloat) {
    return apply_linear(out, at::gelu(apply_linear(in, x, compute_type), "tanh"), compute_type);
  }
  return gelu_network(as_rows(x), in.weight_as(compute_type), in.bias_as(compute_type),
                      out.weight_as(compute_type), out.bias_as(compute_type))
      .view(x.sizes());
}

void branch_linear(Residual& residual, const Layer& layer, const at::Tensor& x, at::ScalarType compute_type) {
  if (compute_type != at::kBFloat16) {
    residual.branch = apply_linear(layer, x, compute_type);
    return;
  }
  const at::Tensor y =
      linear(as_rows(x), layer.weight_as(compute_type), left_out(layer.bias_as(compute_type)));
  residual.branch = y.view(with_last(x, y.size(-1)));
  residual.branch_bias = layer.bias;
}

void branch_gelu_network(Residual& residual, const Layer& in, const Layer& out, const at::Tensor& x,
                         at::ScalarType compute_type) {
  if (compute_type != at::kBFloat16) {
    residual.branch = apply_gelu_network(in, out, x, compute_type);
    return;
  }
  residual.branch = gelu_network(as_rows(x), in.weight_as(compute_type), in.bias_as(compute_type),
                                 out.weight_as(compute_type), left_out(out.bias_as(compute_type)))
                        .view(x.sizes());
  residual.branch_bias = out.bias;
}

at::Tensor apply_attention(const Layer& layer, const at::Tensor& x, std::int64_t heads,
                           at::ScalarType compute_type) {
  if (compute_type != at::kBFloat16) return attention(apply_linear(layer, x, compute_type), heads);
  const at::Tensor qkv =
      linear(as_rows(x), layer.weight_as(compute_type), left_out(layer.bias_as(compute_type)));
  return attention(qkv.view(with_last(x, qkv.size(-1))), heads, layer.bias);
}

at::Tensor apply_embedding(const Layer& tokens, const Layer& positions, const at::Tensor& input_ids,
                           at::ScalarType compute_type) {
  if (compute_type == at::kBFloat16) return embed(input_ids, tokens.weight, positions.weight);
  return at::embedding(tokens.weight, input_ids) +
         at::embedding(positions.weight, at::arange(input_ids.size(1), input_ids.options()));
}

}  // namespace bulkhead
