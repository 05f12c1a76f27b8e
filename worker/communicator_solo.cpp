#include <ATen/core/ivalue.h>

#include "communicator.h"

namespace bulkhead {
namespace {

class SoloCommunicator final : public Communicator {
 public:
  WorkerId rank() const override { return WorkerId(0); }
  std::int64_t world_size() const override { return 1; }
  bool is_solo() const override { return true; }
  c10::intrusive_ptr<c10::ivalue::Future> start_all_reduce_sum(const at::Tensor& tensor) override {
    auto done = c10::make_intrusive<c10::ivalue::Future>(c10::ListType::create(c10::TensorType::get()));
    done->markCompleted(c10::IValue(std::vector<at::Tensor>{tensor}));
    return done;
  }
  Status all_reduce_sum(at::Tensor&) override { return ok_status(); }
  Status broadcast(at::Tensor&, WorkerId root) override {
    CHECK(root == WorkerId(0));
    return ok_status();
  }
  Status barrier() override { return ok_status(); }
  PendingGather start_all_gather(std::string bytes) override {
    CHECK(bytes.size() <= kMaxGatherBytes);
    return PendingGather([bytes = std::move(bytes)] { return PendingGather::Gathered({bytes}); });
  }
  // There is nobody to wait for.
  void abort() override {}
};

}  // namespace

std::unique_ptr<Communicator> make_solo_communicator() { return std::make_unique<SoloCommunicator>(); }

}  // namespace bulkhead
