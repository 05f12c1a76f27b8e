#include "models/gpt.h"

#include <algorithm>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>

#include "ops/head_loss.h"
#include "protocol/result.h"
#include "protocol/rng.h"

namespace bulkhead {
namespace {

// Position of the first element of the running sum that exceeds `draw` of the
// whole; `probabilities` is double [vocabulary] on the CPU.
std::int64_t pick(const at::Tensor& probabilities, double draw) {
  const auto* p = probabilities.const_data_ptr<double>();
  double left = draw * probabilities.sum().item<double>();
  const std::int64_t last = probabilities.numel() - 1;
  for (std::int64_t i = 0; i < last; ++i) {
    left -= p[i];
    if (left < 0) return i;
  }
  return last;
}

}  // namespace

Gpt::Gpt(const ModelConfig& config, std::int64_t vocabulary, std::int64_t seed, at::ScalarType compute_type)
    : context_(config.context), compute_type_(compute_type) {
  CHECK(config.heads >= 1 && config.width % config.heads == 0);
  const at::Generator generator = make_generator(seed);
  wte_ = register_module("wte", normal_layer({vocabulary, config.width}, kGptInitStd, false, generator));
  wpe_ = register_module("wpe", normal_layer({config.context, config.width}, kGptInitStd, false, generator));
  auto stack = register_module("h", std::make_shared<torch::nn::Module>("h"));
  blocks_ = make_blocks(config, generator, *stack);
  ln_f_ = register_module("ln_f", norm_layer(config.width));
}

at::Tensor Gpt::hidden(const at::Tensor& input_ids) const {
  const std::int64_t length = input_ids.size(1);
  CHECK(length <= context_, "a batch longer than the model's context");
  Residual residual{apply_embedding(*wte_, *wpe_, input_ids, compute_type_), {}, {}};
  for (const auto& block : blocks_) block->forward(residual, compute_type_);
  return apply_add_norm(*ln_f_, residual, compute_type_);
}

at::Tensor Gpt::project(const at::Tensor& hidden) const { return apply_linear(*wte_, hidden, compute_type_); }

at::Tensor Gpt::logits(const at::Tensor& input_ids) const { return project(hidden(input_ids)); }

Losses Gpt::losses(const at::Tensor& input_ids, const at::Tensor& labels, std::int64_t count) const {
  if (compute_type_ != at::kBFloat16) {
    Losses losses = cross_entropy(logits(input_ids).flatten(0, 1), labels.flatten());
    losses.count = count;
    return losses;
  }
  const HeadLoss made =
      head_loss(hidden(input_ids).flatten(0, 1), wte_->weight_as(compute_type_), labels.flatten(), count);
  return {made.loss, made.correct, count};
}

std::vector<std::int64_t> Gpt::sample(std::int64_t start, std::int64_t count, std::uint64_t seed,
                                      double temperature) {
  const at::NoGradGuard no_grad;
  const bool was_training = is_training();
  eval();
  Philox random({seed, 0});
  std::vector<std::int64_t> tokens{start};
  for (std::int64_t i = 0; i < count; ++i) {
    const auto used = std::min(static_cast<std::int64_t>(tokens.size()), context_);
    const auto window =
        at::ArrayRef<std::int64_t>(tokens).slice(tokens.size() - static_cast<std::size_t>(used));
    const at::Tensor ids = at::tensor(window).unsqueeze(0).to(wte_->weight.device());
    const at::Tensor last = project(hidden(ids).select(1, used - 1)).squeeze(0);
    const at::Tensor scores = last.to(at::kCPU, at::kDouble) / temperature;
    tokens.push_back(pick(at::softmax(scores, -1), random.uniform()));
  }
  train(was_training);
  tokens.erase(tokens.begin());
  return tokens;
}

}  // namespace bulkhead
