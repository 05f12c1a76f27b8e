// AdamW (Loshchilov & Hutter, "Decoupled weight decay regularization", ICLR
// 2019) and SGD with momentum, by torch's own fused kernels, plus clipping.
//
// Updates parameters in place from their gradients; knows nothing of schedules
// or ranks: equal gradients give equal parameters on every rank.
// Weight decay applies to parameters of two or more dimensions only: biases,
// norms and gains keep theirs.  Compute thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "batch.h"
#include "protocol/result.h"
#include "protocol/run_config.h"

namespace bulkhead {

class Optimizer {
 public:
  // Takes the model's parameters in module order (those that need no gradient
  // are left out) and shares their storage.  The state starts at zero.  The
  // type and ranges in `config` were checked with the run file.
  Optimizer(const std::vector<NamedTensor>& parameters, OptimizerConfig config);

  // Scales all gradients by min(1, max_norm / (norm + 1e-6)) and returns the
  // norm before that: the 2-norm over all gradients together, each parameter's
  // in its own type, their sum in double, in module order, so it is the same
  // bits on every run and rank.  max_norm 0 only measures.  A norm that is not
  // finite is returned and nothing is scaled.  Gradients must be there.
  double clip_grad_norm(double max_norm);

  // One update with learning rate `lr`; every gradient must be there.  Fails
  // when a kernel does.
  Status step(double lr);

  // The state of these parameters is zero again: their values were replaced.
  void forget(const std::vector<std::string>& parameters);

  // Steps taken.
  std::int64_t steps() const;

  // The state, for a checkpoint: "step" (int64 scalar) and, for adamw,
  // "exp_avg.<parameter>" and "exp_avg_sq.<parameter>"; for sgd with momentum
  // "momentum.<parameter>".  Shares storage: copy what must not change.
  std::vector<NamedTensor> state() const;

  // Takes over a state from elsewhere, after checking that all of it fits: an
  // Error (mismatch) names the tensor, and nothing has changed then.
  Status load_state(const std::vector<NamedTensor>& state);

 private:
  // Parameters that share one weight decay: the kernels take lists.
  struct Group {
    double weight_decay = 0;
    std::vector<std::string> names;
    std::vector<at::Tensor> parameters;
    std::vector<at::Tensor> first;   // exp_avg or momentum
    std::vector<at::Tensor> second;  // exp_avg_sq
    std::vector<at::Tensor> steps;   // one shared float scalar, as the kernels want it
  };

  void add(Group& group, const NamedTensor& parameter);
  void step_adamw(Group& group, double lr);
  void step_sgd(Group& group, double lr);

  OptimizerConfig config_;
  std::vector<at::Tensor> parameters_;  // all, in module order
  at::Tensor step_;                     // float scalar on the parameters' device
  std::int64_t steps_ = 0;
  Group decayed_;
  Group undecayed_;
};

}  // namespace bulkhead
