// Llama (Touvron et al. 2023; "The Llama 3 Herd of Models" 2024): pre-norm blocks
// with RMSNorm, rotary positions, grouped-query attention (Ainslie et al. 2023) and
// SwiGLU, no dropout; with a bias on queries, keys and values it is Qwen2.
//
// Parameters are named and shaped as in Hugging Face's files
// (model.embed_tokens.weight, model.layers.0.self_attn.q_proj.weight, …
// model.norm.weight, lm_head.weight where it is not tied), so that they load
// there.  Compute thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "models/language_model.h"
#include "models/layer.h"
#include "models/rope.h"
#include "protocol/run_config.h"

namespace bulkhead {

class LlamaBlock : public torch::nn::Module {
 public:
  LlamaBlock(const ModelConfig& config, const at::Generator& generator);

  // The stream [N,T,width] goes on, with this block's last part as its branch;
  // matrix products in `type`.  Position t depends on positions ≤ t only.
  void forward(Residual& residual, const RopeTables& rope, at::ScalarType type) const;

 private:
  at::Tensor attention(const at::Tensor& x, const RopeTables& rope, at::ScalarType type) const;

  std::int64_t heads_, kv_heads_;
  double norm_eps_;
  LayerPtr q_proj_, k_proj_, v_proj_, o_proj_, gate_proj_, up_proj_, down_proj_;
  LayerPtr input_norm_, post_attention_norm_;
};

class Llama : public torch::nn::Module {
 public:
  // `config` with every 0 that stands for another number resolved and checked
  // (resolve_llama, make_model), `rope` for config.context positions.
  Llama(const ModelConfig& config, const RopeTables& rope, std::int64_t vocabulary, std::int64_t seed,
        at::ScalarType compute_type);

  // int64 [N,T], T ≤ context, to scores [N,T,vocabulary] in the compute type.
  at::Tensor logits(const at::Tensor& input_ids) const;

  // The loss of predicting labels int64 [N,T] from input_ids, over the `count` of
  // them that are not −100.
  Losses losses(const at::Tensor& input_ids, const at::Tensor& labels, std::int64_t count) const;

  // write_tokens() with this model's context.
  std::vector<std::int64_t> sample(Writing writing);

 private:
  at::Tensor hidden(const at::Tensor& input_ids) const;
  const Layer& head() const { return lm_head_ ? *lm_head_ : *embed_tokens_; }

  std::int64_t context_;
  double norm_eps_;
  bool recompute_;
  at::ScalarType compute_type_;
  RopeTables rope_;  // buffers without a place in checkpoints
  LayerPtr embed_tokens_, norm_, lm_head_;
  std::vector<std::shared_ptr<LlamaBlock>> blocks_;
};

// kv_heads, head_dim and mlp_width as numbers where they are 0.  Fails where the
// sizes do not fit together, naming the key.
Result<ModelConfig> resolve_llama(ModelConfig config);

}  // namespace bulkhead
