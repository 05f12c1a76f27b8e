#include "models/losses.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/ne.h>

namespace bulkhead {

Losses cross_entropy(const at::Tensor& scores, const at::Tensor& labels) {
  Losses losses;
  losses.loss = at::cross_entropy_loss(scores.to(at::kFloat), labels);
  const at::NoGradGuard no_grad;
  losses.correct = scores.argmax(-1).eq(labels).sum();
  losses.count = labels.numel();
  return losses;
}

// −100 is torch's own ignore_index, and no score's place: it is never predicted right.
std::int64_t counted_labels(const at::Tensor& labels) { return labels.ne(-100).sum().item<std::int64_t>(); }

Losses contrastive(const at::Tensor& similarity) {
  const at::Tensor own = at::arange(similarity.size(0), similarity.options().dtype(at::kLong));
  Losses losses = cross_entropy(similarity, own);
  losses.loss = (losses.loss + at::cross_entropy_loss(similarity.t().to(at::kFloat), own)) / 2;
  return losses;
}

}  // namespace bulkhead
