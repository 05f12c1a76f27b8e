#include "gloo_group.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "abortable_work.h"
#include "torch_error.h"

namespace bulkhead {
namespace {

using FuturePtr = c10::intrusive_ptr<c10::ivalue::Future>;
using LengthPrefix = std::uint32_t;

// What every rank sends in the first exchange: a length and the bytes, if they
// fit.
constexpr std::size_t kSlotBytes = 1024;
constexpr std::size_t kSlotRoom = kSlotBytes - sizeof(LengthPrefix);

// One exchange of equal slots.
struct Exchange {
  std::size_t slot_bytes = 0;
  at::Tensor received;  // uint8 [world size × slot]
  FuturePtr done;

  const char* slot(std::size_t rank) const {
    return reinterpret_cast<const char*>(received.const_data_ptr<std::uint8_t>()) + rank * slot_bytes;
  }
  std::size_t length(std::size_t rank) const {
    LengthPrefix length = 0;
    std::memcpy(&length, slot(rank), sizeof length);
    return length;
  }
  std::string bytes(std::size_t rank) const {
    return std::string(slot(rank) + sizeof(LengthPrefix), length(rank));
  }
};

}  // namespace

struct GlooGroup::State {
  std::size_t world_size = 0;
  std::shared_ptr<AbortableWork> works = std::make_shared<AbortableWork>();
  c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo;

  Exchange start_exchange(const std::string& bytes, std::size_t slot_bytes);
  PendingGather::Gathered finish_gather(const std::string& bytes, Exchange first);
};

GlooGroup::GlooGroup(std::unique_ptr<State> state) : state_(std::move(state)) {}

GlooGroup::~GlooGroup() {
  if (state_->works->aborted()) state_.release();
}

Result<std::unique_ptr<GlooGroup>> GlooGroup::make(const Rendezvous& rendezvous,
                                                   const CommunicatorOptions& options,
                                                   const std::string& name) {
  CHECK(options.world_size >= 1 && rendezvous.store());
  const std::string doing = "meeting the other ranks over gloo as rank " + std::to_string(options.rank.value);
  return catching(doing, ErrorCode::kUnavailable, [&]() -> Result<std::unique_ptr<GlooGroup>> {
    const std::string prefix = "generation-" + std::to_string(options.generation.value) + "/" + name;
    const auto store = c10::make_intrusive<c10d::PrefixStore>(prefix, rendezvous.store());
    store->setTimeout(options.timeout);
    const auto gloo_options = c10d::ProcessGroupGloo::Options::create(options.timeout);
    gloo_options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(options.address));
    const int rank = static_cast<int>(options.rank.value);
    const int size = static_cast<int>(options.world_size);

    auto state = std::make_unique<State>();
    state->world_size = static_cast<std::size_t>(size);
    state->gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, size, gloo_options);
    return std::unique_ptr<GlooGroup>(new GlooGroup(std::move(state)));
  });
}

FuturePtr GlooGroup::start_all_reduce_sum(const at::Tensor& tensor) {
  CHECK(tensor.is_contiguous() && tensor.is_cpu());
  std::vector<at::Tensor> tensors{tensor};
  return state_->works->watch(*state_->gloo->allreduce(tensors));
}

Status GlooGroup::all_reduce_sum(const at::Tensor& tensor) {
  return catching("the sum over ranks", ErrorCode::kUnavailable,
                  [&] { start_all_reduce_sum(tensor)->waitAndThrow(); });
}

Status GlooGroup::broadcast(const at::Tensor& tensor, WorkerId root) {
  CHECK(tensor.is_contiguous() && tensor.is_cpu());
  return catching("the broadcast", ErrorCode::kUnavailable, [&] {
    std::vector<at::Tensor> tensors{tensor};
    c10d::BroadcastOptions options;
    options.rootRank = root.value;
    state_->works->watch(*state_->gloo->broadcast(tensors, options))->waitAndThrow();
  });
}

Status GlooGroup::barrier() {
  return catching("the barrier", ErrorCode::kUnavailable, [&] {
    // A sum of one number is a barrier, and abortable like every other sum.
    start_all_reduce_sum(at::zeros({1}, at::kInt))->waitAndThrow();
  });
}

PendingGather GlooGroup::start_all_gather(std::string bytes) {
  CHECK(bytes.size() <= kMaxGatherBytes, "an all-gather of " + std::to_string(bytes.size()) + " bytes");
  auto first = catching("starting an all-gather", ErrorCode::kUnavailable,
                        [&]() -> Result<Exchange> { return state_->start_exchange(bytes, kSlotBytes); });
  if (!first) return PendingGather([error = first.error()] { return PendingGather::Gathered(error); });
  return PendingGather([state = state_.get(), bytes = std::move(bytes), exchange = *std::move(first)] {
    return catching("the all-gather", ErrorCode::kUnavailable,
                    [&] { return state->finish_gather(bytes, exchange); });
  });
}

void GlooGroup::abort() { state_->works->abort(); }

Exchange GlooGroup::State::start_exchange(const std::string& bytes, std::size_t slot_bytes) {
  at::Tensor sent = at::zeros({static_cast<std::int64_t>(slot_bytes)}, at::kByte);
  auto* slot = sent.mutable_data_ptr<std::uint8_t>();
  const auto length = static_cast<LengthPrefix>(bytes.size());
  std::memcpy(slot, &length, sizeof length);
  std::memcpy(slot + sizeof length, bytes.data(), std::min(bytes.size(), slot_bytes - sizeof length));

  Exchange exchange;
  exchange.slot_bytes = slot_bytes;
  exchange.received = at::empty({static_cast<std::int64_t>(world_size * slot_bytes)}, at::kByte);
  exchange.done = works->watch(*gloo->_allgather_base(exchange.received, sent));
  return exchange;
}

PendingGather::Gathered GlooGroup::State::finish_gather(const std::string& bytes, Exchange exchange) {
  exchange.done->waitAndThrow();
  std::size_t longest = 0;
  for (std::size_t rank = 0; rank < world_size; ++rank) longest = std::max(longest, exchange.length(rank));
  if (longest > kMaxGatherBytes) {
    return Error{ErrorCode::kMalformed, "the all-gather received a length of " + std::to_string(longest) +
                                            " bytes: the ranks did not call the same collectives"};
  }
  if (longest > kSlotRoom) {
    exchange = start_exchange(bytes, longest + sizeof(LengthPrefix));
    exchange.done->waitAndThrow();
  }
  std::vector<std::string> gathered;
  for (std::size_t rank = 0; rank < world_size; ++rank) gathered.push_back(exchange.bytes(rank));
  return gathered;
}

}  // namespace bulkhead
