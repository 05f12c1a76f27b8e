#include <utility>

#include <ATen/core/ivalue.h>

#include "communicator.h"
#include "gloo_group.h"

namespace bulkhead {
namespace {

class GlooCommunicator final : public Communicator {
 public:
  GlooCommunicator(const CommunicatorOptions& options, std::unique_ptr<GlooGroup> data,
                   std::unique_ptr<GlooGroup> control)
      : rank_(options.rank),
        world_size_(options.world_size),
        data_(std::move(data)),
        control_(std::move(control)) {}

  WorkerId rank() const override { return rank_; }
  std::int64_t world_size() const override { return world_size_; }
  c10::intrusive_ptr<c10::ivalue::Future> start_all_reduce_sum(const at::Tensor& tensor) override {
    return data_->start_all_reduce_sum(tensor);
  }
  Status all_reduce_sum(at::Tensor& tensor) override { return data_->all_reduce_sum(tensor); }
  Status broadcast(at::Tensor& tensor, WorkerId root) override { return data_->broadcast(tensor, root); }
  Status barrier() override { return data_->barrier(); }
  PendingGather start_all_gather(std::string bytes) override {
    return control_->start_all_gather(std::move(bytes));
  }
  void abort() override {
    data_->abort();
    control_->abort();
  }

 private:
  WorkerId rank_;
  std::int64_t world_size_;
  std::unique_ptr<GlooGroup> data_;
  std::unique_ptr<GlooGroup> control_;
};

}  // namespace

Result<std::unique_ptr<Communicator>> make_gloo_communicator(const Rendezvous& rendezvous,
                                                             const CommunicatorOptions& options) {
  if (options.world_size == 1) return make_solo_communicator();
  auto data = GlooGroup::make(rendezvous, options, "gradients");
  if (!data) return data.error();
  auto control = GlooGroup::make(rendezvous, options, "control");
  if (!control) return control.error();
  return std::unique_ptr<Communicator>(
      std::make_unique<GlooCommunicator>(options, *std::move(data), *std::move(control)));
}

}  // namespace bulkhead
