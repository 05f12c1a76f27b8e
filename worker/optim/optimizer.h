// AdamW (Loshchilov & Hutter, "Decoupled weight decay regularization", ICLR
// 2019) and SGD with momentum, by torch's own fused kernels, plus clipping.
//
// Updates parameters in place from their gradients; knows nothing of schedules
// or ranks: equal gradients give equal parameters on every rank.  Or it is sharded
// (ZeRO, stage 1: Rajbhandari et al. 2020): every rank has the whole gradients, keeps
// the moments of its own share and updates that alone, and then the ranks exchange
// what they have updated: the same bits, since AdamW goes number by number.
// Weight decay applies to parameters of two or more dimensions only: biases,
// norms and gains keep theirs.  Compute thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "batch.h"
#include "communicator.h"
#include "ops/kernels.h"
#include "optim/shares.h"
#include "protocol/result.h"
#include "protocol/run_config.h"

namespace bulkhead {

class Optimizer {
 public:
  // Takes the model's parameters in module order (those that need no gradient
  // are left out) and shares their storage.  The state starts at zero.  The
  // type and ranges in `config` were checked with the run file.  `copies`: of
  // some of the parameters, by their names, in a shorter type; every step writes
  // them anew.  `place`: this rank's among those that share a sharded one; the
  // parameters then move into one buffer.
  Optimizer(const std::vector<NamedTensor>& parameters, OptimizerConfig config,
            const std::vector<NamedTensor>& copies = {}, const RankPlace& place = {});

  // Scales all gradients by min(1, max_norm / (norm + 1e-6)) and returns the
  // norm before that: the 2-norm over all gradients together, each parameter's
  // in its own type, their sum in double, in module order, so it is the same
  // bits on every run and rank.  max_norm 0 only measures.  A norm that is not
  // finite is returned and nothing is scaled.  Gradients must be there.
  double clip_grad_norm(double max_norm);

  // Multiplies all gradients by `factor`.
  void scale_gradients(double factor);

  // One update with learning rate `lr`; every gradient must be there.  Fails
  // when a kernel does.  Where it is sharded, exchange() must follow.
  Status step(double lr);

  // Both in one, for AdamW on a GPU in one pass and without waiting for it:
  // returns the norm, float64, 0-dim, perhaps on the device.  There the gradients
  // stay unscaled, and the norm's sum is in float32 parts.
  Result<at::Tensor> clip_and_step(double lr, double max_norm);

  // clip_and_step in two, where is_fused(): what the next update goes by, and the
  // update, which queues the same work every time while gradients stay where they
  // are, so that it can be recorded and replayed (step_graph.h).
  bool is_fused() const { return fused_.has_value(); }
  void prepare_step(double lr, double max_norm);
  Result<at::Tensor> queue_step();

  // Sharded: every rank gets what the others have updated, with its copies.
  // Collective; elsewhere nothing.
  Status exchange(Communicator& communicator);

  // Writes the copies anew: the parameters were changed by somebody else.
  void refresh_copies();

  // The state of these parameters is zero again: their values were replaced.
  void forget(const std::vector<std::string>& parameters);

  // Steps taken.
  std::int64_t steps() const;

  // The state, for a checkpoint: "step" (int64 scalar) and, for adamw,
  // "exp_avg.<parameter>" and "exp_avg_sq.<parameter>"; for sgd with momentum
  // "momentum.<parameter>".  Shares storage: copy what must not change.  Not for
  // a sharded one.
  std::vector<NamedTensor> state() const;

  // The same of all ranks together, where it is sharded as CPU copies: the same
  // for every number of ranks.  Collective.
  Result<std::vector<NamedTensor>> whole_state(Communicator& communicator) const;

  // Takes over a whole state from elsewhere, after checking that all of it fits: an
  // Error (mismatch) names the tensor, and nothing has changed then.
  Status load_state(const std::vector<NamedTensor>& state);

 private:
  // Parameters that share one weight decay: the kernels take lists.
  struct Group {
    double weight_decay = 0;
    std::vector<std::string> names;
    std::vector<at::Tensor> parameters;
    std::vector<std::size_t> places;  // in parameters_
    std::vector<Share> shares;        // which of its numbers are updated here; `own` of them
    std::vector<at::Tensor> own;      // all of a parameter, where it is not sharded
    std::vector<at::Tensor> first;    // exp_avg or momentum, of `own`
    std::vector<at::Tensor> second;   // exp_avg_sq
    std::vector<at::Tensor> steps;    // one shared float scalar, as the kernels want it
  };

  // One of a parameter's running means.
  struct Moment {
    std::string name;  // in a checkpoint
    at::Tensor value;  // of its share
    const Group* group;
    std::size_t index, place;  // of its parameter, in the group and in parameters_
    bool is_second;
  };

  void add(Group& group, const NamedTensor& parameter, std::size_t place);
  std::vector<at::Tensor> own_gradients(const Group& group) const;
  void for_each_moment(const std::function<void(const Moment&)>& visit) const;
  void step_adamw(Group& group, double lr);
  void step_sgd(Group& group, double lr);
  void fuse();

  OptimizerConfig config_;
  std::optional<Shares> shares_;        // sharded
  std::vector<at::Tensor> parameters_;  // all, in module order
  at::Tensor step_;                     // float scalar on the parameters' device
  std::int64_t steps_ = 0;
  Group decayed_;
  Group undecayed_;
  std::vector<at::Tensor> copied_;       // parameters that have copies
  std::vector<at::Tensor> copies_;       // in the same order
  std::optional<kernels::Adamw> fused_;  // where there are kernels for it
  std::vector<at::Tensor> fused_order_;  // its parameters
};

}  // namespace bulkhead
