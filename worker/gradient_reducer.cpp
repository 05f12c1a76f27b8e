#include "gradient_reducer.h"

#include <cmath>
#include <unordered_map>
#include <utility>

#include <ATen/ops/_foreach_div.h>
#include <ATen/ops/_foreach_zero.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/distributed/c10d/reducer.hpp>

#include "torch_error.h"

namespace bulkhead {
namespace {

// As torch's DDP: the first bucket is small so that the sums start early.
constexpr std::int64_t kFirstBucketBytes = c10d::kDefaultFirstBucketBytes;
constexpr std::int64_t kBucketBytes = c10d::kDefaultBucketBytesCap;

// Sums a bucket over ranks and leaves the division to finish(): c10d's own hook
// divides by the world size, which is not the weight present.
class SumHook final : public c10d::CommHookInterface {
 public:
  explicit SumHook(Communicator& communicator) : communicator_(communicator) {}
  c10::intrusive_ptr<c10::ivalue::Future> runHook(c10d::GradBucket& bucket) override {
    return communicator_.start_all_reduce_sum(bucket.getBuffer());
  }
  at::Tensor parseHookResult(const c10::IValue& result) override {
    return c10d::detail::parseCppCommHookResult(result);
  }

 private:
  Communicator& communicator_;
};

// A Reducer that believes its buckets rebuilt.  One that waits for
// rebuild_buckets() notes every parameter of every backward pass for it, and
// that list would grow for as long as the run lasts.
class FixedReducer final : public c10d::Reducer {
 public:
  FixedReducer(const std::vector<at::Tensor>& tensors, std::unordered_map<std::size_t, std::string> names,
               Communicator& communicator)
      : c10d::Reducer(tensors, GradientReducer::bucket_order(tensors), communicator.process_group(),
                      std::vector<bool>(tensors.size(), false), kBucketBytes,
                      /*find_unused_parameters=*/false, /*gradient_as_bucket_view=*/true, std::move(names),
                      kFirstBucketBytes, /*skip_all_reduce_unused_params=*/false,
                      /*use_python_reducer=*/false, /*bucket_bytes_cap_list=*/std::vector<std::int64_t>{}) {
    has_rebuilt_bucket_ = true;
    register_comm_hook(std::make_unique<SumHook>(communicator));
  }
};

}  // namespace

struct GradientReducer::State {
  std::vector<std::string> names;
  std::vector<at::Tensor> tensors;        // the trainable parameters, then the weight
  std::unique_ptr<FixedReducer> reducer;  // null in a world of one
  double total = 0;                       // weight of the step; in a world of one
  at::Tensor flat;                        // all gradients; on a GPU in a world of one

  at::Tensor& weight() { return tensors.back(); }
  at::Tensor nothing() const;
  std::vector<at::Tensor> gradients();
  Status check_all_took_part();
  void give_places();
};

GradientReducer::GradientReducer(std::unique_ptr<State> state) : state_(std::move(state)) {}
GradientReducer::GradientReducer(GradientReducer&&) noexcept = default;
GradientReducer& GradientReducer::operator=(GradientReducer&&) noexcept = default;
GradientReducer::~GradientReducer() = default;

Result<GradientReducer> GradientReducer::make(const std::vector<NamedTensor>& parameters,
                                              Communicator& communicator) {
  auto state = std::make_unique<State>();
  for (const NamedTensor& parameter : parameters) {
    if (!parameter.value.requires_grad()) continue;
    state->names.push_back(parameter.name);
    state->tensors.push_back(parameter.value);
  }
  if (state->tensors.empty()) return Error{ErrorCode::kMismatch, "the model has no parameter to train"};
  return catching("preparing the gradient buckets", ErrorCode::kFailed, [&]() -> Result<GradientReducer> {
    const auto options = at::TensorOptions().dtype(at::kFloat).device(state->tensors[0].device());
    state->tensors.push_back(at::zeros({}, options).requires_grad_());
    state->names.emplace_back("the weight of the batch");
    if (communicator.world_size() > 1) {
      std::unordered_map<std::size_t, std::string> names;
      for (std::size_t i = 0; i < state->names.size(); ++i) names[i] = state->names[i];
      state->reducer = std::make_unique<FixedReducer>(state->tensors, std::move(names), communicator);
    }
    return GradientReducer(std::move(state));
  });
}

void GradientReducer::start_step() {
  // Reset, not zeroed: the Reducer's bucket views must not be written before
  // the step's own gradients are there.
  state_->total = 0;
  if (state_->flat.defined()) {
    state_->flat.zero_();
    return;
  }
  for (at::Tensor& tensor : state_->tensors) tensor.mutable_grad().reset();
  if (state_->reducer) state_->reducer->prepare_for_forward();
}

Status GradientReducer::backward(const at::Tensor& loss, double weight, bool last_micro) {
  CHECK(std::isfinite(weight) && weight >= 0);
  state_->total += weight;
  if (weight == 0 && !last_micro) return ok_status();
  return catching("the backward pass", ErrorCode::kUnavailable, [&]() -> Status {
    const at::AutoGradMode with_gradients(true);
    // Without this call the Reducer's hooks stay silent and gradients
    // accumulate locally.
    if (last_micro && state_->reducer) state_->reducer->prepare_for_backward({});
    const at::Tensor root = weight == 0 ? state_->nothing() : loss + state_->weight();
    root.backward(at::full_like(root, weight));
    return last_micro ? state_->check_all_took_part() : ok_status();
  });
}

Result<double> GradientReducer::finish() {
  return catching("averaging the gradients", ErrorCode::kFailed, [&]() -> Result<double> {
    const double total = state_->reducer ? state_->weight().grad().item<double>() : state_->total;
    const std::vector<at::Tensor> gradients = state_->gradients();
    if (total == 0) {
      at::_foreach_zero_(gradients);
    } else if (total != 1) {
      at::_foreach_div_(gradients, total);
    }
    if (!state_->flat.defined()) state_->give_places();
    return total;
  });
}

std::vector<std::vector<std::size_t>> GradientReducer::bucket_order(const std::vector<at::Tensor>& tensors) {
  std::vector<std::vector<std::size_t>> buckets;
  std::int64_t bytes_left = 0;
  for (std::size_t i = tensors.size(); i-- > 0;) {
    const auto bytes = static_cast<std::int64_t>(tensors[i].nbytes());
    const bool same_kind = !buckets.empty() && tensors[i].dtype() == tensors[buckets.back().back()].dtype();
    if (!same_kind || bytes_left <= 0) {
      bytes_left = buckets.empty() ? kFirstBucketBytes : kBucketBytes;
      buckets.emplace_back();
    }
    buckets.back().push_back(i);
    bytes_left -= bytes;
  }
  return buckets;
}

// A root whose gradient is exactly zero everywhere, whatever the parameters and
// activations hold: 0 × a loss that is not finite would be NaN.
at::Tensor GradientReducer::State::nothing() const {
  at::Tensor sum = tensors.back() + 0;
  for (const at::Tensor& tensor : tensors) {
    sum = sum + tensor.reshape(-1).narrow(0, 0, 0).sum().to(at::kFloat);
  }
  return sum;
}

std::vector<at::Tensor> GradientReducer::State::gradients() {
  std::vector<at::Tensor> gradients;
  for (std::size_t i = 0; i + 1 < tensors.size(); ++i) gradients.push_back(tensors[i].mutable_grad());
  return gradients;
}

// What is added in place is neither allocated nor copied apart.
void GradientReducer::State::give_places() {
  constexpr std::int64_t kApart = 64;  // each begins on a multiple of 256 bytes
  if (reducer || !tensors[0].is_cuda()) return;
  std::int64_t size = 0;
  for (const at::Tensor& tensor : tensors) {
    if (tensor.scalar_type() != at::kFloat || !tensor.is_contiguous()) return;
    size += (tensor.numel() + kApart - 1) / kApart * kApart;
  }
  const at::Tensor all = at::zeros({size}, tensors[0].options().requires_grad(false));
  std::int64_t at = 0;
  for (at::Tensor& tensor : tensors) {
    at::Tensor place = all.narrow(0, at, tensor.numel()).view(tensor.sizes());
    place.copy_(tensor.grad());
    tensor.mutable_grad() = place;
    at += (tensor.numel() + kApart - 1) / kApart * kApart;
  }
  flat = all;
}

Status GradientReducer::State::check_all_took_part() {
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].grad().defined()) continue;
    return Error{ErrorCode::kMismatch,
                 "parameter " + names[i] + " takes no part in the loss, so it has no gradient"};
  }
  if (reducer) reducer->check_finalized();
  return ok_status();
}

}  // namespace bulkhead
