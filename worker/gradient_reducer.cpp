#include "gradient_reducer.h"

#include <cmath>
#include <functional>
#include <optional>
#include <utility>

#include <ATen/TensorOperators.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/_foreach_div.h>
#include <ATen/ops/_foreach_zero.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/zeros.h>
#include <c10/core/StreamGuard.h>
#include <torch/csrc/autograd/utils/lambda_post_hook.h>
#include <torch/csrc/autograd/variable.h>

#include "ops/gradient_sum.h"
#include "torch_error.h"

namespace bulkhead {
namespace {

using torch::autograd::variable_list;

// As torch's DDP: the first bucket is small so that the sums start early.
constexpr std::int64_t kFirstBucketBytes = 1 << 20;
constexpr std::int64_t kBucketBytes = 25 << 20;

constexpr std::int64_t kApart = 64;  // gradients begin on multiples of 256 bytes
std::int64_t room_for(const at::Tensor& tensor) { return (tensor.numel() + kApart - 1) / kApart * kApart; }

// A call when a backward pass has done with a parameter, whether or not its
// gradient came the usual way (ops/gradient_sum.h).  For one pass, after its
// forward: what it hangs on belongs to the stream on which it was made, and must
// not outlive the pass.
class DoneHook {
 public:
  DoneHook(const at::Tensor& parameter, const std::function<void()>& call)
      : node_(torch::autograd::impl::grad_accumulator(parameter)) {
    key_ = node_->add_post_hook(std::make_unique<torch::autograd::utils::LambdaPostHook>(
        [call](const variable_list& outputs, const variable_list&) {
          call();
          return outputs;
        }));
  }
  DoneHook(DoneHook&& other) noexcept : node_(std::exchange(other.node_, nullptr)), key_(other.key_) {}
  DoneHook& operator=(DoneHook&&) = delete;
  ~DoneHook() {
    if (node_) node_->del_post_hook(key_);
  }

 private:
  std::shared_ptr<torch::autograd::Node> node_;
  std::uintptr_t key_ = 0;
};

}  // namespace

struct GradientReducer::State {
  struct Bucket {
    std::vector<std::size_t> parameters;
    std::int64_t begin = 0, end = 0;  // in `flat`
    std::size_t missing = 0;          // parameters, in this backward pass
  };

  std::vector<std::string> names;
  std::vector<at::Tensor> tensors;       // the trainable parameters, then the weight
  Communicator* communicator = nullptr;  // null where there is nobody to sum with
  double own = 0;                        // this rank's weight of the step
  at::Tensor flat;                       // all gradients
  std::vector<Bucket> buckets;
  std::vector<DoneHook> hooks;        // of the backward pass that sums
  std::optional<c10::Stream> stream;  // the same; none between
  std::size_t begun = 0;              // buckets
  std::vector<c10::intrusive_ptr<c10::ivalue::Future>> sums;

  at::Tensor& weight() { return tensors.back(); }
  at::Device device() const { return tensors[0].device(); }
  at::Tensor nothing() const;
  std::vector<at::Tensor> gradients();
  Status check_all_took_part();
  void give_places();
  void clear();
  void clear_empty();
  void expect_sums();
  void done_with(std::size_t bucket);
  void begin_sums(bool all);
  void await_sums();
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
    CHECK(parameter.value.scalar_type() == at::kFloat && parameter.value.is_contiguous(), parameter.name);
    state->names.push_back(parameter.name);
    state->tensors.push_back(parameter.value);
  }
  if (state->tensors.empty()) return Error{ErrorCode::kMismatch, "the model has no parameter to train"};
  return catching("preparing the gradients", ErrorCode::kFailed, [&]() -> Result<GradientReducer> {
    state->tensors.push_back(
        at::zeros({}, at::TensorOptions(at::kFloat).device(state->device())).requires_grad_());
    state->names.emplace_back("the weight of the batch");
    if (!communicator.is_solo()) state->communicator = &communicator;
    return GradientReducer(std::move(state));
  });
}

void GradientReducer::start_step() {
  state_->own = 0;
  if (state_->flat.defined()) {
    state_->clear();
    return;
  }
  for (at::Tensor& tensor : state_->tensors) tensor.mutable_grad().reset();
}

Status GradientReducer::backward(const at::Tensor& loss, double weight, bool last_micro) {
  CHECK(std::isfinite(weight) && weight >= 0);
  state_->own += weight;
  if (weight == 0 && !last_micro) return ok_status();
  return catching("the backward pass", ErrorCode::kUnavailable, [&]() -> Status {
    const at::AutoGradMode with_gradients(true);
    if (last_micro) state_->expect_sums();
    if (weight == 0) state_->clear_empty();
    const at::Tensor root = weight == 0 ? state_->nothing() : loss + state_->weight();
    root.backward(at::full_like(root, weight));
    if (!last_micro) return ok_status();
    if (Status complete = state_->check_all_took_part(); !complete) return complete;
    if (!state_->flat.defined()) state_->give_places();
    state_->await_sums();
    return ok_status();
  });
}

Result<double> GradientReducer::finish() {
  return catching("averaging the gradients", ErrorCode::kFailed, [&]() -> Result<double> {
    const bool on_device = state_->communicator != nullptr && !state_->device().is_cpu();
    // Apart, since it is divided with the others.
    const at::Tensor sum = state_->communicator == nullptr ? at::Tensor() : state_->weight().grad().clone();
    const double total = !sum.defined() || (on_device && state_->own > 0) ? state_->own : sum.item<double>();
    const std::vector<at::Tensor> gradients =
        state_->flat.defined() ? std::vector{state_->flat} : state_->gradients();
    if (total == 0) {
      at::_foreach_zero_(gradients);
    } else if (on_device) {  // in the same way on every rank
      state_->flat.div_(sum);
    } else if (total != 1) {
      at::_foreach_div_(gradients, total);
    }
    return total;
  });
}

std::vector<std::vector<std::size_t>> GradientReducer::bucket_order(const std::vector<at::Tensor>& tensors) {
  std::vector<std::vector<std::size_t>> buckets;
  std::int64_t bytes_left = 0;
  for (std::size_t i = tensors.size(); i-- > 0;) {
    const bool same_kind = !buckets.empty() && tensors[i].dtype() == tensors[buckets.back().back()].dtype();
    if (!same_kind || bytes_left <= 0) {
      bytes_left = buckets.empty() ? kFirstBucketBytes : kBucketBytes;
      buckets.emplace_back();
    }
    buckets.back().push_back(i);
    bytes_left -= static_cast<std::int64_t>(tensors[i].nbytes());
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
  if (communicator == nullptr && device().is_cpu()) return;
  std::int64_t size = 0;
  for (const at::Tensor& tensor : tensors) size += room_for(tensor);
  const at::Tensor all = at::zeros({size}, tensors[0].options().requires_grad(false));
  std::int64_t at = 0;
  for (std::vector<std::size_t>& members : bucket_order(tensors)) {
    Bucket bucket{std::move(members), at, at, 0};
    for (const std::size_t i : bucket.parameters) {
      at::Tensor place = all.narrow(0, at, tensors[i].numel()).view(tensors[i].sizes());
      place.copy_(tensors[i].grad());
      place.unsafeGetTensorImpl()->set_backend_meta(c10::make_intrusive<GradientPlace>());
      tensors[i].mutable_grad() = place;
      at += room_for(tensors[i]);
    }
    bucket.end = at;
    buckets.push_back(std::move(bucket));
  }
  flat = all;
}

// Matrices that operations claimed in the step before are only said to be empty:
// the first to come writes them.  The others are cleared at once.
void GradientReducer::State::clear() {
  std::vector<at::Tensor> cleared;
  for (at::Tensor& tensor : tensors) {
    GradientPlace* place = GradientPlace::of(tensor.grad());
    place->empty = place->claimed && tensor.dim() >= 2;
    place->claimed = false;
    if (!place->empty) cleared.push_back(tensor.grad());
  }
  at::_foreach_zero_(cleared);
}

void GradientReducer::State::clear_empty() {
  for (at::Tensor& tensor : tensors) {
    GradientPlace* place = tensor.grad().defined() ? GradientPlace::of(tensor.grad()) : nullptr;
    if (place != nullptr && std::exchange(place->empty, false)) tensor.mutable_grad().zero_();
  }
}

void GradientReducer::State::expect_sums() {
  if (communicator == nullptr) return;
  stream = c10::impl::VirtualGuardImpl(device().type()).getStream(device());
  begun = 0;
  for (std::size_t number = 0; number < buckets.size(); ++number) {
    buckets[number].missing = buckets[number].parameters.size();
    for (const std::size_t i : buckets[number].parameters) {
      hooks.emplace_back(tensors[i], [this, number] { done_with(number); });
    }
  }
}

// From a hook, so perhaps on autograd's thread, whose current stream is any.
void GradientReducer::State::done_with(std::size_t bucket) {
  --buckets[bucket].missing;
  begin_sums(false);
}

// Of complete buckets, in their order.
void GradientReducer::State::begin_sums(bool all) {
  const c10::StreamGuard guard(*stream);
  for (; begun < buckets.size() && (all || buckets[begun].missing == 0); ++begun) {
    const Bucket& bucket = buckets[begun];
    sums.push_back(
        communicator->start_all_reduce_sum(flat.narrow(0, bucket.begin, bucket.end - bucket.begin)));
  }
}

// In the first step they all begin here.  On a GPU the stream waits, not the thread.
void GradientReducer::State::await_sums() {
  if (communicator == nullptr) return;
  hooks.clear();
  begin_sums(true);
  stream.reset();
  for (const auto& sum : std::exchange(sums, {})) sum->waitAndThrow();
}

Status GradientReducer::State::check_all_took_part() {
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const at::Tensor& gradient = tensors[i].grad();
    const GradientPlace* place = gradient.defined() ? GradientPlace::of(gradient) : nullptr;
    if (gradient.defined() && (place == nullptr || !place->empty)) continue;
    return Error{ErrorCode::kMismatch,
                 "parameter " + names[i] + " takes no part in the loss, so it has no gradient"};
  }
  return ok_status();
}

}  // namespace bulkhead
