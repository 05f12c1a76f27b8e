#include "models/classifier.h"

#include <numbers>
#include <string>

#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/relu.h>

namespace bulkhead {
namespace {

constexpr double kReluGain = std::numbers::sqrt2;
// A small head, so that the first loss is near that of a uniform guess.
constexpr double kHeadGain = 0.1;

}  // namespace

Mlp::Mlp(const ModelConfig& config, const DatasetFacts& facts, std::int64_t seed, at::ScalarType compute_type)
    : compute_type_(compute_type) {
  const at::Generator generator = make_generator(seed);
  std::int64_t inputs =
      facts.kind == DataKind::kImages ? facts.channels * facts.height * facts.width : facts.features;
  auto stack = register_module("layers", std::make_shared<torch::nn::Module>("layers"));
  for (std::int64_t i = 0; i < config.layers; ++i) {
    layers_.push_back(stack->register_module(std::to_string(i),
                                             uniform_layer({config.width, inputs}, kReluGain, generator)));
    inputs = config.width;
  }
  head_ = register_module("head", uniform_layer({facts.classes, inputs}, kHeadGain, generator));
}

at::Tensor Mlp::logits(const at::Tensor& inputs) const {
  at::Tensor x = inputs.flatten(1);
  for (const auto& layer : layers_) x = at::relu(apply_linear(*layer, x, compute_type_));
  return apply_linear(*head_, x, compute_type_);
}

Cnn::Cnn(const ModelConfig& config, const DatasetFacts& facts, std::int64_t seed, at::ScalarType compute_type)
    : compute_type_(compute_type) {
  const at::Generator generator = make_generator(seed);
  const std::int64_t width = config.width;
  const std::int64_t channels[] = {facts.channels, width, width, 2 * width, 2 * width};
  auto stack = register_module("conv", std::make_shared<torch::nn::Module>("conv"));
  for (std::size_t i = 0; i < 4; ++i) {
    convolutions_.push_back(stack->register_module(
        std::to_string(i), uniform_layer({channels[i + 1], channels[i], 3, 3}, kReluGain, generator)));
  }
  const std::int64_t pixels = (facts.height / 4) * (facts.width / 4);
  head_ = register_module("head", uniform_layer({facts.classes, 2 * width * pixels}, kHeadGain, generator));
}

at::Tensor Cnn::logits(const at::Tensor& images) const {
  at::Tensor x = images;
  for (std::size_t i = 0; i < convolutions_.size(); ++i) {
    x = at::relu(apply_conv3x3(*convolutions_[i], x, compute_type_));
    if (i % 2 == 1) x = at::max_pool2d(x, 2);
  }
  return apply_linear(*head_, x.flatten(1), compute_type_);
}

}  // namespace bulkhead
