#include "optim/shares.h"

#include <algorithm>

#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

namespace bulkhead {
namespace {

constexpr std::int64_t kApart = 64;

std::int64_t rounded(std::int64_t count) { return (count + kApart - 1) / kApart * kApart; }

}  // namespace

Shares::Shares(const std::vector<at::Tensor>& parameters, const RankPlace& place) : place_(place) {
  CHECK(!parameters.empty() && place.rank >= 0 && place.rank < place.ranks);
  const c10::NoGradGuard no_grad;
  std::int64_t total = 0;
  for (const at::Tensor& parameter : parameters) {
    CHECK(parameter.scalar_type() == at::kFloat && parameter.is_contiguous());
    begins_.push_back(total);
    shapes_.push_back(parameter.sizes().vec());
    total += rounded(parameter.numel());
  }
  part_ = rounded((total + place.ranks - 1) / place.ranks);
  buffer_ = at::zeros({part_ * place.ranks}, parameters[0].options().requires_grad(false));
  const std::int64_t first = place.rank * part_;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const std::int64_t count = parameters[i].numel();
    const std::int64_t begin = std::clamp<std::int64_t>(first - begins_[i], 0, count);
    own_.push_back({begin, std::clamp<std::int64_t>(first + part_ - begins_[i], begin, count) - begin});
    const at::Tensor here = view(buffer_, i);
    here.copy_(parameters[i]);
    parameters[i].set_data(here);
  }
}

Status Shares::exchange(Communicator& communicator) { return exchange(buffer_, communicator); }

Status Shares::exchange(at::Tensor& buffer, Communicator& communicator) const {
  CHECK(communicator.world_size() == place_.ranks);
  const c10::NoGradGuard no_grad;
  for (std::int64_t rank = 0; rank < place_.ranks; ++rank) {
    at::Tensor part = buffer.narrow(0, rank * part_, part_);
    if (Status done = communicator.broadcast(part, WorkerId(rank)); !done) return done;
  }
  return ok_status();
}

at::Tensor Shares::empty_buffer() const { return at::zeros_like(buffer_); }

at::Tensor Shares::view(const at::Tensor& buffer, std::size_t i) const {
  std::int64_t count = 1;
  for (const std::int64_t extent : shapes_[i]) count *= extent;
  return buffer.narrow(0, begins_[i], count).view(shapes_[i]);
}

}  // namespace bulkhead
