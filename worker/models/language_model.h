// What gpt and llama have in common behind their blocks: the loss of the next
// token, and writing.
//
// The compute thread.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "models/layer.h"
#include "models/losses.h"

namespace bulkhead {

// hidden [N,T,width] after the last norm, in the compute type; the head's weight
// [vocabulary,width]; labels int64 [N,T], of which `count` are not −100.
Losses next_token_losses(const at::Tensor& hidden, const Layer& head, const at::Tensor& labels,
                         std::int64_t count, at::ScalarType compute_type);

struct Writing {
  std::int64_t start = 0;       // the token before the first
  std::int64_t count = 0;       // tokens to write
  std::int64_t context = 0;     // so many before each are looked at
  std::int64_t vocabulary = 0;  // ids from here on are never written
  std::uint64_t seed = 0;
  double temperature = 1;
};

// Tokens drawn one by one from `scores`: int64 [1,T] on `device` to the scores
// [1,vocabulary] of what follows.  The same seed gives the same tokens.  The
// module's mode is eval meanwhile.
std::vector<std::int64_t> write_tokens(const Writing& writing, torch::nn::Module& module, at::Device device,
                                       const std::function<at::Tensor(const at::Tensor&)>& scores);

}  // namespace bulkhead
