#include "models/clip.h"

#include <cmath>
#include <numbers>
#include <string>

#include <ATen/ops/arange.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/where.h>

#include "protocol/result.h"

namespace bulkhead {
namespace {

constexpr double kReluGain = std::numbers::sqrt2;
constexpr double kFirstScale = 1.0 / 0.07;
constexpr std::int64_t kGroups = 8;  // of a group norm
constexpr std::int64_t kStages = 3;

// Channels of the first stage, so that the last has about `width`.
std::int64_t first_channels(std::int64_t width) {
  const std::int64_t quarter = (width + 3) / 4;
  return (quarter + kGroups - 1) / kGroups * kGroups;
}

// Zero vectors stay zero.
at::Tensor normalised(const at::Tensor& vectors) {
  const at::Tensor x = vectors.to(at::kFloat);
  return x / x.norm(2, {1}, /*keepdim=*/true).clamp_min(1e-12);
}

}  // namespace

ImageEncoder::ImageEncoder(const ModelConfig& config, std::int64_t channels, const at::Generator& generator,
                           at::ScalarType compute_type)
    : compute_type_(compute_type) {
  auto convolutions = register_module("conv", std::make_shared<torch::nn::Module>("conv"));
  auto norms = register_module("norm", std::make_shared<torch::nn::Module>("norm"));
  std::int64_t outputs = first_channels(config.width);
  for (std::int64_t i = 0; i < kStages; ++i) {
    const std::string name = std::to_string(i);
    convolutions_.push_back(
        convolutions->register_module(name, uniform_layer({outputs, channels, 3, 3}, kReluGain, generator)));
    norms_.push_back(norms->register_module(name, norm_layer(outputs)));
    channels = outputs;
    outputs *= 2;
  }
  proj_ = register_module("proj", uniform_layer({config.width, channels}, 1.0, generator));
}

at::Tensor ImageEncoder::forward(const at::Tensor& images) const {
  at::Tensor x = images;
  for (std::size_t i = 0; i < convolutions_.size(); ++i) {
    x = apply_conv3x3(*convolutions_[i], x, compute_type_);
    x = at::max_pool2d(at::relu(apply_group_norm(*norms_[i], x, kGroups)), 2);
  }
  return apply_linear(*proj_, x.mean({2, 3}), compute_type_);
}

TextEncoder::TextEncoder(const ModelConfig& config, const DatasetFacts& facts, const at::Generator& generator,
                         at::ScalarType compute_type)
    : context_(config.context),
      end_token_(facts.end_token),
      recompute_(config.activation_checkpointing),
      compute_type_(compute_type) {
  wte_ =
      register_module("wte", normal_layer({facts.vocabulary, config.width}, kGptInitStd, false, generator));
  wpe_ = register_module("wpe", normal_layer({config.context, config.width}, kGptInitStd, false, generator));
  auto stack = register_module("h", std::make_shared<torch::nn::Module>("h"));
  blocks_ = make_blocks(config, generator, *stack);
  ln_f_ = register_module("ln_f", norm_layer(config.width));
  const double std = 1.0 / std::sqrt(static_cast<double>(config.width));
  proj_ = register_module("proj", normal_layer({config.width, config.width}, std, false, generator));
}

at::Tensor TextEncoder::forward(const at::Tensor& input_ids) const {
  const std::int64_t length = input_ids.size(1);
  CHECK(length <= context_, "a batch longer than the model's context");
  const at::Tensor positions = at::arange(length, input_ids.options());
  Residual residual{apply_embedding(*wte_, *wpe_, input_ids, compute_type_), {}, {}};
  run_blocks(blocks_, residual, compute_type_, recompute_);
  // A sum with one term instead of an index: its gradient needs no atomic adds.
  const at::Tensor end = input_ids.eq(end_token_).to(at::kInt).argmax(1, /*keepdim=*/true);
  const at::Tensor at_end = positions.eq(end).to(at::kFloat).unsqueeze(-1);
  return apply_linear(*proj_, apply_norm(*ln_f_, (residual.sum() * at_end).sum(1)), compute_type_);
}

Clip::Clip(const ModelConfig& config, const DatasetFacts& facts, std::int64_t seed,
           at::ScalarType compute_type) {
  const at::Generator generator = make_generator(seed);
  image_ = register_module("image",
                           std::make_shared<ImageEncoder>(config, facts.channels, generator, compute_type));
  text_ = register_module("text", std::make_shared<TextEncoder>(config, facts, generator, compute_type));
  logit_scale_ = register_parameter("logit_scale", at::scalar_tensor(std::log(kFirstScale), at::kFloat));
}

at::Tensor Clip::embed_images(const at::Tensor& images) const { return normalised(image_->forward(images)); }

at::Tensor Clip::embed_texts(const at::Tensor& input_ids) const {
  return normalised(text_->forward(input_ids));
}

// The paper clamps the parameter itself after each step.  Here its value is
// clamped, and past the bound only a gradient that leads back is let through:
// the same effect, and forward changes nothing.
at::Tensor Clip::scale() const {
  const at::Tensor held =
      logit_scale_ + (logit_scale_.clamp_max(std::log(kLargestScale)) - logit_scale_).detach();
  if (held.requires_grad()) {
    const at::Tensor past = logit_scale_.detach().gt(std::log(kLargestScale));
    held.register_hook(
        [past](const at::Tensor& gradient) { return at::where(past, gradient.clamp_min(0), gradient); });
  }
  return held.exp();
}

at::Tensor Clip::similarity(const at::Tensor& images, const at::Tensor& input_ids) const {
  return embed_images(images).matmul(embed_texts(input_ids).t()) * scale();
}

}  // namespace bulkhead
