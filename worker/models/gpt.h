// GPT-2 (Radford et al. 2019): pre-norm blocks, learned positions, GELU (tanh
// form), output layer tied to the token embedding, no dropout.
//
// Parameters are named as in GPT-2 and nanoGPT (wte.weight, wpe.weight,
// h.0.ln_1.weight, h.0.attn.c_attn.weight, … ln_f.bias), matrices stored
// [out, in] as in nanoGPT.  Compute thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "models/language_model.h"
#include "models/layer.h"
#include "models/transformer_block.h"
#include "protocol/run_config.h"

namespace bulkhead {

class Gpt : public torch::nn::Module {
 public:
  // config.width must be a multiple of config.heads (make_model checks).
  Gpt(const ModelConfig& config, std::int64_t vocabulary, std::int64_t seed, at::ScalarType compute_type);

  // int64 [N,T], T ≤ context, to scores [N,T,vocabulary] in the compute type.
  // Position t depends on positions ≤ t only.
  at::Tensor logits(const at::Tensor& input_ids) const;

  // The loss of predicting labels int64 [N,T] from input_ids, over the `count` of
  // them that are not −100.
  Losses losses(const at::Tensor& input_ids, const at::Tensor& labels, std::int64_t count) const;

  // write_tokens() with this model's context.
  std::vector<std::int64_t> sample(Writing writing);

 private:
  // The residual stream after the last norm, [N,T,width] in the compute type.
  at::Tensor hidden(const at::Tensor& input_ids) const;
  at::Tensor project(const at::Tensor& hidden) const;

  std::int64_t context_;
  bool recompute_;
  at::ScalarType compute_type_;
  LayerPtr wte_, wpe_, ln_f_;
  std::vector<std::shared_ptr<TransformerBlock>> blocks_;
};

}  // namespace bulkhead
