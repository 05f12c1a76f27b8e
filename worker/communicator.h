// The ranks of one generation, talking: gradients and tensors over NCCL or
// gloo, and short byte strings (the control plane) over a gloo group of its own.
//
// Every rank calls the same collectives in the same order, on the compute
// thread only.  The one exception is abort(), from any thread.  A collective
// that fails (a rank died, time is up, abort() was called) returns an Error;
// the generation is then over and this object good for nothing but deletion.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/util/intrusive_ptr.h>

#include "protocol/ids.h"
#include "protocol/result.h"
#include "rendezvous.h"

namespace c10 {
namespace ivalue {
struct Future;
}
}  // namespace c10

namespace bulkhead {

// The most bytes that one rank may give to an all-gather: the control plane is
// no place for data.
inline constexpr std::size_t kMaxGatherBytes = 64 * 1024;

// An all-gather under way.  wait() once, on the compute thread, in the order
// in which the gathers were started; it must not outlive its communicator.
class PendingGather {
 public:
  using Gathered = Result<std::vector<std::string>>;
  explicit PendingGather(std::function<Gathered()> wait) : wait_(std::move(wait)) {}

  // Every rank's bytes, in rank order.
  Gathered wait() { return std::exchange(wait_, nullptr)(); }

 private:
  std::function<Gathered()> wait_;
};

struct CommunicatorOptions {
  WorkerId rank;
  std::int64_t world_size = 1;

  // The GPU of this rank (NCCL only).
  std::int64_t local_rank = 0;

  // Ranks meet only those of the same generation.
  Generation generation;

  // This machine's address, on which gloo listens; one that the other ranks
  // reach.
  std::string address = "127.0.0.1";

  // NCCL only: a world of one meets itself as several ranks do, so that their way can be tested on one GPU;
  // without it such a world is solo.
  bool meet_alone = false;

  // How long a collective may wait for the slowest rank.  Must exceed the
  // longest time that ranks may lie apart (a checkpoint, a validation).
  std::chrono::milliseconds timeout{std::chrono::minutes(10)};
};

class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual WorkerId rank() const = 0;
  virtual std::int64_t world_size() const = 0;

  // Whether every collective is the identity: a world of one that nobody has asked to meet itself.
  virtual bool is_solo() const { return false; }

  // Starts to replace `tensor` (dense, contiguous, on the communicator's
  // device) by its sum over ranks.  The Future holds a list of that one tensor,
  // or the error; it is what a gradient bucket waits for.
  virtual c10::intrusive_ptr<c10::ivalue::Future> start_all_reduce_sum(const at::Tensor& tensor) = 0;

  // The same, waited for.  On CUDA the current stream waits, not the thread.
  virtual Status all_reduce_sum(at::Tensor& tensor) = 0;

  // Replaces `tensor` (dense, contiguous) by that of rank `root`.
  virtual Status broadcast(at::Tensor& tensor, WorkerId root) = 0;

  // Returns when every rank has called it.
  virtual Status barrier() = 0;

  // Starts to gather every rank's bytes, at most kMaxGatherBytes each.  One
  // exchange of 1 KiB a rank, and a second one, inside wait(), only where some
  // rank's bytes need it.
  virtual PendingGather start_all_gather(std::string bytes) = 0;

  // Ends what this rank waits for, now and later, with an Error.  Any thread,
  // idempotent, does not wait.  It cannot free a thread that the library holds
  // (the destructor then leaves the group to the end of the process, which
  // should be _exit), so whoever calls it is ready to kill the process.
  virtual void abort() = 0;

  Result<std::vector<std::string>> all_gather(std::string bytes) {
    return start_all_gather(std::move(bytes)).wait();
  }
};

// A world of one rank: every collective is the identity.
std::unique_ptr<Communicator> make_solo_communicator();

// CPU tensors.  Returns when all ranks have met; in a world of one `rendezvous`
// may be none.
Result<std::unique_ptr<Communicator>> make_gloo_communicator(const Rendezvous& rendezvous,
                                                             const CommunicatorOptions& options);

// CUDA tensors on device `local_rank`.  Fails (unavailable) in a build without
// CUDA and where there is no such device.
Result<std::unique_ptr<Communicator>> make_nccl_communicator(const Rendezvous& rendezvous,
                                                             const CommunicatorOptions& options);

}  // namespace bulkhead
