#include "models/transformer_block.h"

#include <cmath>
#include <string>
#include <utility>

#include "models/recompute.h"
#include "protocol/result.h"

namespace bulkhead {
namespace {

struct Part : torch::nn::Module {
  LayerPtr add(const std::string& name, LayerPtr layer) { return register_module(name, std::move(layer)); }
};

}  // namespace

TransformerBlock::TransformerBlock(const ModelConfig& config, const at::Generator& generator)
    : heads_(config.heads) {
  CHECK(config.heads >= 1 && config.width % config.heads == 0);
  const std::int64_t width = config.width;
  // GPT-2 §2.3: residual layers are scaled by 1/√(number of residual layers).
  const double residual_std = kGptInitStd / std::sqrt(2.0 * static_cast<double>(config.layers));
  ln_1_ = register_module("ln_1", norm_layer(width));
  auto attn = register_module("attn", std::make_shared<Part>());
  c_attn_ = attn->add("c_attn", normal_layer({3 * width, width}, kGptInitStd, true, generator));
  attn_proj_ = attn->add("c_proj", normal_layer({width, width}, residual_std, true, generator));
  ln_2_ = register_module("ln_2", norm_layer(width));
  auto mlp = register_module("mlp", std::make_shared<Part>());
  c_fc_ = mlp->add("c_fc", normal_layer({4 * width, width}, kGptInitStd, true, generator));
  mlp_proj_ = mlp->add("c_proj", normal_layer({width, 4 * width}, residual_std, true, generator));
}

void TransformerBlock::forward(Residual& residual, at::ScalarType type) const {
  const at::Tensor mixed = apply_attention(*c_attn_, apply_add_norm(*ln_1_, residual, type), heads_, type);
  branch_linear(residual, *attn_proj_, mixed, type);
  const at::Tensor normed = apply_add_norm(*ln_2_, residual, type);
  branch_gelu_network(residual, *c_fc_, *mlp_proj_, normed, type);
}

std::vector<std::shared_ptr<TransformerBlock>> make_blocks(const ModelConfig& config,
                                                           const at::Generator& generator,
                                                           torch::nn::Module& stack) {
  std::vector<std::shared_ptr<TransformerBlock>> blocks;
  for (std::int64_t i = 0; i < config.layers; ++i) {
    blocks.push_back(
        stack.register_module(std::to_string(i), std::make_shared<TransformerBlock>(config, generator)));
  }
  return blocks;
}

void run_blocks(const std::vector<std::shared_ptr<TransformerBlock>>& blocks, Residual& residual,
                at::ScalarType type, bool recompute) {
  for (const auto& block : blocks) {
    const auto run = [block, type](Residual& through) { block->forward(through, type); };
    recompute ? recomputed(residual, run) : run(residual);
  }
}

}  // namespace bulkhead
