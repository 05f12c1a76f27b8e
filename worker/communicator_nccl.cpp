#include <utility>

#include <c10/cuda/CUDAFunctions.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "communicator.h"
#include "gloo_group.h"
#include "torch_error.h"

namespace bulkhead {
namespace {

using NcclGroup = c10::intrusive_ptr<c10d::ProcessGroupNCCL>;

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(const CommunicatorOptions& options, NcclGroup data, std::unique_ptr<GlooGroup> control)
      : rank_(options.rank),
        world_size_(options.world_size),
        data_(std::move(data)),
        control_(std::move(control)) {}

  WorkerId rank() const override { return rank_; }
  std::int64_t world_size() const override { return world_size_; }

  c10::intrusive_ptr<c10::ivalue::Future> start_all_reduce_sum(const at::Tensor& tensor) override {
    CHECK(tensor.is_contiguous() && tensor.is_cuda());
    std::vector<at::Tensor> tensors{tensor};
    return data_->allreduce(tensors)->getFuture();
  }
  Status all_reduce_sum(at::Tensor& tensor) override {
    return catching("the sum over ranks", ErrorCode::kUnavailable,
                    [&] { start_all_reduce_sum(tensor)->waitAndThrow(); });
  }
  Status broadcast(at::Tensor& tensor, WorkerId root) override {
    CHECK(tensor.is_contiguous() && tensor.is_cuda());
    return catching("the broadcast", ErrorCode::kUnavailable, [&] {
      std::vector<at::Tensor> tensors{tensor};
      c10d::BroadcastOptions options;
      options.rootRank = root.value;
      data_->broadcast(tensors, options)->wait();
    });
  }
  // On the control plane: a barrier orders the ranks, not their streams.
  Status barrier() override { return control_->barrier(); }
  PendingGather start_all_gather(std::string bytes) override {
    return control_->start_all_gather(std::move(bytes));
  }
  void abort() override {
    control_->abort();
    // May throw where the communicator is already broken; then it is aborted.
    (void)catching("aborting NCCL", ErrorCode::kFailed, [&] { data_->abort(); });
  }

 private:
  WorkerId rank_;
  std::int64_t world_size_;
  NcclGroup data_;
  std::unique_ptr<GlooGroup> control_;
};

Result<NcclGroup> make_group(const Rendezvous& rendezvous, const CommunicatorOptions& options) {
  const std::string doing = "meeting the other ranks over NCCL as rank " + std::to_string(options.rank.value);
  return catching(doing, ErrorCode::kUnavailable, [&]() -> Result<NcclGroup> {
    const std::string prefix = "generation-" + std::to_string(options.generation.value) + "/nccl";
    const auto store = c10::make_intrusive<c10d::PrefixStore>(prefix, rendezvous.store());
    store->setTimeout(options.timeout);
    const auto nccl_options = c10d::ProcessGroupNCCL::Options::create();
    nccl_options->timeout = options.timeout;
    const int rank = static_cast<int>(options.rank.value);
    const int size = static_cast<int>(options.world_size);

    return c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, size, nccl_options);
  });
}

Status choose_device(std::int64_t local_rank) {
  return catching("choosing the GPU", ErrorCode::kUnavailable, [&]() -> Status {
    const auto count = c10::cuda::device_count();
    if (local_rank < 0 || local_rank >= count) {
      return Error{ErrorCode::kUnavailable, "local rank " + std::to_string(local_rank) +
                                                " has no GPU: this machine shows " + std::to_string(count)};
    }
    c10::cuda::set_device(static_cast<c10::DeviceIndex>(local_rank));
    return ok_status();
  });
}

}  // namespace

Result<std::unique_ptr<Communicator>> make_nccl_communicator(const Rendezvous& rendezvous,
                                                             const CommunicatorOptions& options) {
  if (auto chosen = choose_device(options.local_rank); !chosen) return chosen.error();
  if (options.world_size == 1 && !options.meet_alone) return make_solo_communicator();
  auto control = GlooGroup::make(rendezvous, options, "control");
  if (!control) return control.error();
  auto data = make_group(rendezvous, options);
  if (!data) return data.error();
  return std::unique_ptr<Communicator>(
      std::make_unique<NcclCommunicator>(options, *std::move(data), *std::move(control)));
}

}  // namespace bulkhead
