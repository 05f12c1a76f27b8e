#include "models/language_model.h"

#include <algorithm>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>

#include "ops/head_loss.h"
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

// head_loss keeps the gradient of the scores in their type, which float16 is too
// narrow for: the loss is scaled behind it.
Losses next_token_losses(const at::Tensor& hidden, const Layer& head, const at::Tensor& labels,
                         std::int64_t count, at::ScalarType compute_type) {
  if (compute_type != at::kBFloat16) {
    const at::Tensor scores = apply_linear(head, hidden, compute_type);
    Losses losses = cross_entropy(scores.flatten(0, 1), labels.flatten());
    losses.count = count;
    return losses;
  }
  const HeadLoss made =
      head_loss(hidden.flatten(0, 1), head.weight_as(compute_type), labels.flatten(), count);
  return {made.loss, made.correct, count};
}

std::vector<std::int64_t> write_tokens(const Writing& writing, torch::nn::Module& module, at::Device device,
                                       const std::function<at::Tensor(const at::Tensor&)>& scores) {
  const at::NoGradGuard no_grad;
  const bool was_training = module.is_training();
  module.eval();
  Philox random({writing.seed, 0});
  std::vector<std::int64_t> tokens{writing.start};
  for (std::int64_t i = 0; i < writing.count; ++i) {
    const auto used = std::min(static_cast<std::int64_t>(tokens.size()), writing.context);
    const auto window =
        at::ArrayRef<std::int64_t>(tokens).slice(tokens.size() - static_cast<std::size_t>(used));
    const at::Tensor last = scores(at::tensor(window).unsqueeze(0).to(device)).squeeze(0);
    const at::Tensor known = last.narrow(0, 0, std::min(writing.vocabulary, last.size(0)));
    tokens.push_back(
        pick(at::softmax(known.to(at::kCPU, at::kDouble) / writing.temperature, -1), random.uniform()));
  }
  module.train(was_training);
  tokens.erase(tokens.begin());
  return tokens;
}

}  // namespace bulkhead
