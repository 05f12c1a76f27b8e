// What a batch costs: the two losses that the models share.
//
// Pure functions of tensors, in float32 whatever the scores are.  Compute
// thread only.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace bulkhead {

struct Losses {
  at::Tensor loss;         // mean cross entropy over the labels, in nats: float32, 0-dim, differentiable
  at::Tensor correct;      // labels that were the model's first choice: int64, 0-dim, no gradient
  std::int64_t count = 0;  // labels in the batch that count
};

// scores [M,classes] of any float type, labels int64 [M].
Losses cross_entropy(const at::Tensor& scores, const at::Tensor& labels);

// How many of the labels are not −100, which is the mark of one that does not
// count; cross_entropy leaves those out.  Waits for the device.
std::int64_t counted_labels(const at::Tensor& labels);

// CLIP's loss (Radford et al. 2021, figure 3): similarity [N,N] of any float
// type, picture i against text j, where i and j belong together where i = j.
// The loss is the mean of both directions' cross entropies (of ln N for a
// uniform guess, of 0 for N = 1); a label is a picture, and correct is the
// picture whose most similar text is its own.
Losses contrastive(const at::Tensor& similarity);

}  // namespace bulkhead
