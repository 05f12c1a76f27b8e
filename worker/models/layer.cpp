#include "models/layer.h"

#include <cmath>
#include <utility>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/group_norm.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

namespace bulkhead {
namespace {

constexpr double kNormEpsilon = 1e-5;

at::Tensor cast_if_defined(const at::Tensor& tensor, at::ScalarType type) {
  return tensor.defined() ? tensor.to(type) : tensor;
}

}  // namespace

Layer::Layer(at::Tensor initial_weight, at::Tensor initial_bias)
    : weight(register_parameter("weight", std::move(initial_weight))) {
  if (initial_bias.defined()) bias = register_parameter("bias", std::move(initial_bias));
}

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

}  // namespace bulkhead
