#include "models/llama.h"

#include <utility>

#include <ATen/ops/embedding.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include "models/recompute.h"
#include "ops/rms_norm.h"
#include "ops/rotary.h"
#include "ops/swiglu.h"

namespace bulkhead {
namespace {

constexpr double kInitStd = 0.02;  // transformers' initializer_range
constexpr std::int64_t kMlpStep = 64;

struct Part : torch::nn::Module {
  LayerPtr add(const std::string& name, LayerPtr layer) { return register_module(name, std::move(layer)); }
};

LayerPtr rms_layer(std::int64_t width) {
  return std::make_shared<Layer>(at::ones({width}, at::kFloat), at::Tensor());
}

at::Tensor apply_add_rms_norm(const Layer& layer, Residual& residual, double eps, at::ScalarType type) {
  const at::IntArrayRef sizes = residual.stream.sizes();
  const std::int64_t width = residual.stream.size(-1);
  const at::Tensor branch =
      residual.branch.defined() ? residual.branch.reshape({-1, width}) : residual.branch;
  const Normed made = add_rms_norm(residual.stream.reshape({-1, width}), branch, layer.weight, eps, type);
  residual.stream = made.sum.view(sizes);
  residual.branch.reset();
  return made.normed.view(sizes);
}

}  // namespace

LlamaBlock::LlamaBlock(const ModelConfig& config, const at::Generator& generator)
    : heads_(config.heads), kv_heads_(config.kv_heads), norm_eps_(config.norm_eps) {
  const std::int64_t width = config.width, own = heads_ * config.head_dim,
                     shared = kv_heads_ * config.head_dim;
  const auto layer = [&](std::int64_t out, std::int64_t in, bool bias) {
    return normal_layer({out, in}, kInitStd, bias, generator);
  };
  auto attention = register_module("self_attn", std::make_shared<Part>());
  q_proj_ = attention->add("q_proj", layer(own, width, config.qkv_bias));
  k_proj_ = attention->add("k_proj", layer(shared, width, config.qkv_bias));
  v_proj_ = attention->add("v_proj", layer(shared, width, config.qkv_bias));
  o_proj_ = attention->add("o_proj", layer(width, own, false));
  auto mlp = register_module("mlp", std::make_shared<Part>());
  gate_proj_ = mlp->add("gate_proj", layer(config.mlp_width, width, false));
  up_proj_ = mlp->add("up_proj", layer(config.mlp_width, width, false));
  down_proj_ = mlp->add("down_proj", layer(width, config.mlp_width, false));
  input_norm_ = register_module("input_layernorm", rms_layer(width));
  post_attention_norm_ = register_module("post_attention_layernorm", rms_layer(width));
}

at::Tensor LlamaBlock::attention(const at::Tensor& x, const RopeTables& rope, at::ScalarType type) const {
  const auto in_heads = [&](const Layer& layer, std::int64_t heads) {
    return apply_linear(layer, x, type).view({x.size(0), x.size(1), heads, -1});
  };
  const at::Tensor q = rotary(in_heads(*q_proj_, heads_), rope.cos, rope.sin);
  const at::Tensor k = rotary(in_heads(*k_proj_, kv_heads_), rope.cos, rope.sin);
  const at::Tensor v = in_heads(*v_proj_, kv_heads_);
  const at::Tensor mixed = at::scaled_dot_product_attention(
      q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), /*attn_mask=*/{}, /*dropout_p=*/0.0,
      /*is_causal=*/true, /*scale=*/std::nullopt, /*enable_gqa=*/kv_heads_ != heads_);
  return apply_linear(*o_proj_, mixed.transpose(1, 2).reshape({x.size(0), x.size(1), -1}), type);
}

void LlamaBlock::forward(Residual& residual, const RopeTables& rope, at::ScalarType type) const {
  residual.branch = attention(apply_add_rms_norm(*input_norm_, residual, norm_eps_, type), rope, type);
  const at::Tensor x = apply_add_rms_norm(*post_attention_norm_, residual, norm_eps_, type);
  const at::Tensor inner = swiglu(apply_linear(*gate_proj_, x, type), apply_linear(*up_proj_, x, type));
  residual.branch = apply_linear(*down_proj_, inner, type);
}

Llama::Llama(const ModelConfig& config, const RopeTables& rope, std::int64_t vocabulary, std::int64_t seed,
             at::ScalarType compute_type)
    : context_(config.context),
      norm_eps_(config.norm_eps),
      recompute_(config.activation_checkpointing),
      compute_type_(compute_type),
      rope_{register_buffer("rope_cos", rope.cos), register_buffer("rope_sin", rope.sin)} {
  const at::Generator generator = make_generator(seed);
  const auto table = [&] { return normal_layer({vocabulary, config.width}, kInitStd, false, generator); };
  auto model = register_module("model", std::make_shared<Part>());
  embed_tokens_ = model->add("embed_tokens", table());
  auto stack = model->register_module("layers", std::make_shared<torch::nn::Module>("layers"));
  for (std::int64_t i = 0; i < config.layers; ++i) {
    blocks_.push_back(
        stack->register_module(std::to_string(i), std::make_shared<LlamaBlock>(config, generator)));
  }
  norm_ = model->add("norm", rms_layer(config.width));
  if (!config.tied) lm_head_ = register_module("lm_head", table());
}

at::Tensor Llama::hidden(const at::Tensor& input_ids) const {
  CHECK(input_ids.size(1) <= context_, "a batch longer than the model's context");
  Residual residual;
  residual.stream = at::embedding(embed_tokens_->weight, input_ids);
  for (const auto& block : blocks_) {
    const auto run = [block, rope = rope_, type = compute_type_](Residual& through) {
      block->forward(through, rope, type);
    };
    recompute_ ? recomputed(residual, run) : run(residual);
  }
  return apply_add_rms_norm(*norm_, residual, norm_eps_, compute_type_);
}

at::Tensor Llama::logits(const at::Tensor& input_ids) const {
  return apply_linear(head(), hidden(input_ids), compute_type_);
}

Losses Llama::losses(const at::Tensor& input_ids, const at::Tensor& labels, std::int64_t count) const {
  return next_token_losses(hidden(input_ids), head(), labels, count, compute_type_);
}

std::vector<std::int64_t> Llama::sample(Writing writing) {
  writing.context = context_;
  return write_tokens(writing, *this, embed_tokens_->weight.device(), [this](const at::Tensor& ids) {
    return apply_linear(head(), hidden(ids).select(1, ids.size(1) - 1), compute_type_);
  });
}

Result<ModelConfig> resolve_llama(ModelConfig config) {
  const auto mismatch = [](const std::string& sentence) { return Error{ErrorCode::kMismatch, sentence}; };
  if (config.kv_heads == 0) config.kv_heads = config.heads;
  if (config.heads % config.kv_heads != 0) {
    return mismatch("model.kv_heads: " + std::to_string(config.kv_heads) + " does not divide model.heads " +
                    std::to_string(config.heads));
  }
  if (config.head_dim == 0) config.head_dim = config.width / config.heads;
  if (config.head_dim % 2 != 0)
    return mismatch("model.head_dim: " + std::to_string(config.head_dim) +
                    " is odd; rotary positions turn pairs");
  if (config.mlp_width == 0) config.mlp_width = (config.width * 8 / 3 + kMlpStep - 1) / kMlpStep * kMlpStep;
  return config;
}

}  // namespace bulkhead
