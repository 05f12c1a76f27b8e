#include "models/gpt.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>

#include "protocol/result.h"
#include "protocol/rng.h"

namespace bulkhead {
namespace {

constexpr double kInitStd = 0.02;

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

// Names the parts of a block as GPT-2's checkpoints do: attn.c_attn, mlp.c_fc, …
struct GptPart : torch::nn::Module {
  LayerPtr add(const std::string& name, LayerPtr layer) { return register_module(name, std::move(layer)); }
};

struct GptBlock : torch::nn::Module {
  GptBlock(const ModelConfig& config, const at::Generator& generator) : heads(config.heads) {
    const std::int64_t width = config.width;
    // GPT-2 §2.3: residual layers are scaled by 1/√(number of residual layers).
    const double residual_std = kInitStd / std::sqrt(2.0 * static_cast<double>(config.layers));
    ln_1 = register_module("ln_1", norm_layer(width));
    auto attn = register_module("attn", std::make_shared<GptPart>());
    c_attn = attn->add("c_attn", normal_layer({3 * width, width}, kInitStd, true, generator));
    attn_proj = attn->add("c_proj", normal_layer({width, width}, residual_std, true, generator));
    ln_2 = register_module("ln_2", norm_layer(width));
    auto mlp = register_module("mlp", std::make_shared<GptPart>());
    c_fc = mlp->add("c_fc", normal_layer({4 * width, width}, kInitStd, true, generator));
    mlp_proj = mlp->add("c_proj", normal_layer({width, 4 * width}, residual_std, true, generator));
  }

  // [N,T,width] → [N,T,width]
  at::Tensor attention(const at::Tensor& x, at::ScalarType type) const {
    const auto qkv = apply_linear(*c_attn, x, type).chunk(3, -1);
    const auto split_heads = [&](const at::Tensor& part) {
      return part.view({x.size(0), x.size(1), heads, -1}).transpose(1, 2);
    };
    const at::Tensor mixed = at::scaled_dot_product_attention(
        split_heads(qkv[0]), split_heads(qkv[1]), split_heads(qkv[2]), /*attn_mask=*/{}, /*dropout_p=*/0.0,
        /*is_causal=*/true);
    return apply_linear(*attn_proj, mixed.transpose(1, 2).reshape(x.sizes()), type);
  }

  at::Tensor forward(const at::Tensor& x, at::ScalarType type) const {
    const at::Tensor attended = x + attention(apply_norm(*ln_1, x), type);
    const at::Tensor inner = at::gelu(apply_linear(*c_fc, apply_norm(*ln_2, attended), type), "tanh");
    return attended + apply_linear(*mlp_proj, inner, type);
  }

  std::int64_t heads;
  LayerPtr ln_1, c_attn, attn_proj, ln_2, c_fc, mlp_proj;
};

Gpt::Gpt(const ModelConfig& config, std::int64_t vocabulary, std::int64_t seed, at::ScalarType compute_type)
    : context_(config.context), compute_type_(compute_type) {
  CHECK(config.heads >= 1 && config.width % config.heads == 0);
  const at::Generator generator = make_generator(seed);
  wte_ = register_module("wte", normal_layer({vocabulary, config.width}, kInitStd, false, generator));
  wpe_ = register_module("wpe", normal_layer({config.context, config.width}, kInitStd, false, generator));
  auto stack = register_module("h", std::make_shared<torch::nn::Module>("h"));
  for (std::int64_t i = 0; i < config.layers; ++i) {
    blocks_.push_back(
        stack->register_module(std::to_string(i), std::make_shared<GptBlock>(config, generator)));
  }
  ln_f_ = register_module("ln_f", norm_layer(config.width));
}

at::Tensor Gpt::hidden(const at::Tensor& input_ids) const {
  const std::int64_t length = input_ids.size(1);
  CHECK(length <= context_, "a batch longer than the model's context");
  const at::Tensor positions = at::arange(length, input_ids.options());
  at::Tensor x = at::embedding(wte_->weight, input_ids) + at::embedding(wpe_->weight, positions);
  for (const auto& block : blocks_) x = block->forward(x, compute_type_);
  return apply_norm(*ln_f_, x);
}

at::Tensor Gpt::project(const at::Tensor& hidden) const { return apply_linear(*wte_, hidden, compute_type_); }

at::Tensor Gpt::logits(const at::Tensor& input_ids) const { return project(hidden(input_ids)); }

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
