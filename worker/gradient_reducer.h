// Gradients of one optimizer step: cleared, accumulated over micro-batches,
// summed over ranks while backward still runs, and divided by the weight that
// was present.
//
// Every micro-batch has a weight: 1, or 0 for one that is skipped.  The weights
// travel as one more parameter, so the average is over what was really trained:
// a rank that skips contributes nothing and does not dilute the others.
// From the second step on all gradients lie in one buffer, which a step clears at
// once and to which gradients are added in place; the first, where each is made
// anew, shows that every parameter takes part.  Ranks sum that buffer in pieces
// ("buckets", as torch's DDP), fixed in reverse parameter order and begun in that
// order as soon as the backward pass has done with one: another layout would sum
// in another order, and a resumed run would not be bit-equal.
//
// Compute thread, and autograd's in a backward pass.  Must not outlive its
// communicator; one per model.
#pragma once

#include <memory>
#include <vector>

#include "batch.h"
#include "communicator.h"
#include "protocol/result.h"

namespace bulkhead {

class GradientReducer {
 public:
  // Takes the model's parameters in module order (the same on every rank, on
  // the communicator's device, float32 and contiguous); those that need no
  // gradient are left out.  Fails when none is left.
  static Result<GradientReducer> make(const std::vector<NamedTensor>& parameters, Communicator& communicator);
  GradientReducer(GradientReducer&&) noexcept;
  GradientReducer& operator=(GradientReducer&&) noexcept;
  ~GradientReducer();

  // Clears all gradients.  Before the first forward of a step.
  void start_step();

  // Adds weight × the gradient of `loss` (a differentiable scalar; unused and
  // allowed to be undefined or not finite when the weight is 0).  Every rank
  // says `last_micro` at the last micro-batch of the step, once: there the sums
  // over ranks happen.  Fails when a rank is lost or a parameter takes no part
  // in the loss.
  Status backward(const at::Tensor& loss, double weight, bool last_micro);

  // After the last backward: divides every gradient by the total weight, which
  // it returns.  0 means that all ranks skipped; the gradients are then zero.
  // With other ranks on a GPU it returns this rank's weight where that is above
  // zero: the total is known there alone, and nobody waits for it.
  Result<double> finish();

  // What the buckets hold, as indices into the trainable parameters with the
  // weight as the last one: for tests of their order.
  static std::vector<std::vector<std::size_t>> bucket_order(const std::vector<at::Tensor>& tensors);

 private:
  struct State;
  explicit GradientReducer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace bulkhead
