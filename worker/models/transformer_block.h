// One pre-norm transformer block as GPT-2's (Radford et al. 2019): causal
// self-attention, then an MLP of four times the width with GELU (tanh form),
// no dropout.  The text part of gpt and clip.
//
// Its parts are named as in GPT-2's checkpoints: ln_1, attn.c_attn, attn.c_proj,
// ln_2, mlp.c_fc, mlp.c_proj.  Compute thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "models/layer.h"
#include "protocol/run_config.h"

namespace bulkhead {

// Standard deviation of GPT-2's initial weights.
inline constexpr double kGptInitStd = 0.02;

class TransformerBlock : public torch::nn::Module {
 public:
  // config.width must be a multiple of config.heads (make_model checks).
  // config.layers, the number of blocks, scales the residual layers.
  TransformerBlock(const ModelConfig& config, const at::Generator& generator);

  // The stream [N,T,width] goes on, with this block's last part as its branch;
  // matrix products in `type`.  Position t depends on positions ≤ t only.
  void forward(Residual& residual, at::ScalarType type) const;

 private:
  std::int64_t heads_;
  LayerPtr ln_1_, c_attn_, attn_proj_, ln_2_, c_fc_, mlp_proj_;
};

// config.layers of them as children 0, 1, … of `stack`.
std::vector<std::shared_ptr<TransformerBlock>> make_blocks(const ModelConfig& config,
                                                           const at::Generator& generator,
                                                           torch::nn::Module& stack);

// All of them, one after the other; each is computed again in backward where
// `recompute` (recompute.h).
void run_blocks(const std::vector<std::shared_ptr<TransformerBlock>>& blocks, Residual& residual,
                at::ScalarType type, bool recompute);

}  // namespace bulkhead
