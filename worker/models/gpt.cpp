#include "models/gpt.h"

#include "protocol/result.h"

namespace bulkhead {

Gpt::Gpt(const ModelConfig& config, std::int64_t vocabulary, std::int64_t seed, at::ScalarType compute_type)
    : context_(config.context), recompute_(config.activation_checkpointing), compute_type_(compute_type) {
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
  run_blocks(blocks_, residual, compute_type_, recompute_);
  return apply_add_norm(*ln_f_, residual, compute_type_);
}

at::Tensor Gpt::project(const at::Tensor& hidden) const { return apply_linear(*wte_, hidden, compute_type_); }

at::Tensor Gpt::logits(const at::Tensor& input_ids) const { return project(hidden(input_ids)); }

Losses Gpt::losses(const at::Tensor& input_ids, const at::Tensor& labels, std::int64_t count) const {
  return next_token_losses(hidden(input_ids), *wte_, labels, count, compute_type_);
}

std::vector<std::int64_t> Gpt::sample(Writing writing) {
  writing.context = context_;
  return write_tokens(writing, *this, wte_->weight.device(), [this](const at::Tensor& ids) {
    return project(hidden(ids).select(1, ids.size(1) - 1));
  });
}

}  // namespace bulkhead
