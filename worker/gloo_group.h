// One gloo process group on CPU: what the gloo communicator is made of, and the
// control plane of the NCCL one.
//
// Adds to c10d what it lacks: abort(), which gloo has none of, and gathering
// byte strings.  Compute thread, except abort(): any thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "communicator.h"

namespace bulkhead {

class GlooGroup {
 public:
  // Meets the other ranks under `name`; a rank without others meets itself.
  static Result<std::unique_ptr<GlooGroup>> make(const Rendezvous& rendezvous,
                                                 const CommunicatorOptions& options, const std::string& name);

  // Joins gloo's threads; after abort() it leaves them and the group behind,
  // because they may be stuck until the timeout.
  ~GlooGroup();

  // As in communicator.h.
  c10::intrusive_ptr<c10::ivalue::Future> start_all_reduce_sum(const at::Tensor& tensor);
  Status all_reduce_sum(const at::Tensor& tensor);
  Status broadcast(const at::Tensor& tensor, WorkerId root);
  Status barrier();
  PendingGather start_all_gather(std::string bytes);
  void abort();

 private:
  struct State;
  explicit GlooGroup(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace bulkhead
