#include "device_lender.h"

#include <algorithm>
#include <utility>

#include "protocol/codec.h"

namespace bulkhead {
namespace {

constexpr std::size_t kAlignment = 256;  // of tensors in a region: what CUDA's own allocations have

std::size_t aligned(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

Error malformed(std::string what) { return {ErrorCode::kMalformed, std::move(what)}; }

// What nobody reads before it is computed with: any bits will do.
bool needs_no_check(DType dtype, const std::vector<std::int64_t>& shape) {
  return dtype >= DType::kFloat16 || (dtype == DType::kUInt8 && shape.size() > 2);
}

}  // namespace

Status DeviceLender::lend(Call& call) {
  std::size_t bytes = 0;
  for (const Tensor& tensor : call.batch) bytes += aligned(tensor.bytes.size);
  Result<std::shared_ptr<DeviceBlock>> block = block_of(2 * bytes);
  if (!block) return block.error();
  Region region;
  region.segment = (*block)->number();
  region.bytes = static_cast<std::int64_t>((*block)->size());
  region.memory = (*block)->memory_handle();
  region.ready = (*block)->ready_handle();
  std::size_t offset = 0;
  for (const Tensor& tensor : call.batch) {
    if (Status filled = memory_.fill(**block, offset, tensor.bytes); !filled) return filled;
    region.tensors.push_back({tensor.name, "", static_cast<std::int64_t>(offset), tensor.dtype, tensor.shape,
                              tensor.strides.empty() ? dense_strides(tensor.shape) : tensor.strides});
    offset += aligned(tensor.bytes.size);
  }
  if (Status finished = (*block)->finish(); !finished) return finished;
  call.region = std::move(region);
  call.writable.clear();
  lent_[call.seq] = {std::move(*block), std::exchange(call.batch, {})};
  return ok_status();
}

// Of those this process has open already, the smallest that will do.
Result<std::shared_ptr<DeviceBlock>> DeviceLender::block_of(std::size_t bytes) {
  auto found = idle_.end();
  for (auto block = idle_.begin(); block != idle_.end(); ++block) {
    const bool fits = (*block)->size() >= bytes;
    if (fits && (found == idle_.end() || (*block)->size() < (*found)->size())) found = block;
  }
  if (found == idle_.end()) return memory_.take_shared(bytes);
  std::shared_ptr<DeviceBlock> block = std::move(*found);
  idle_.erase(found);
  return block;
}

Status DeviceLender::take(Reply& reply, bool all_to_host) {
  const auto lent = lent_.extract(reply.seq);
  if (lent.empty()) {
    if (reply.in_region.empty()) return ok_status();
    return malformed("its output lies in a region that it was not lent");
  }
  const std::shared_ptr<DeviceBlock>& block = lent.mapped().block;
  if (reply.in_region.size() > kMaxTensors) return malformed("its output holds too many tensors");
  for (const Piece& piece : std::exchange(reply.in_region, {})) {
    const auto same_name = [&](const Tensor& other) { return other.name == piece.name; };
    if (std::ranges::any_of(reply.batch, same_name))
      return malformed("the output holds \"" + piece.name + "\" twice");
    Result<Tensor> tensor = output(*block, piece, all_to_host);
    if (!tensor) return tensor.error();
    reply.batch.push_back(std::move(*tensor));
  }
  const auto is_it = [&](const Place& place) {
    return place.segment == block->number() && place.offset == 0;
  };
  if (std::erase_if(reply.held, is_it) > 0)
    held_.emplace(block->number(), block);
  else
    idle_.push_back(block);
  return ok_status();
}

Result<Tensor> DeviceLender::output(const DeviceBlock& block, const Piece& piece, bool to_host) {
  const auto about = [&](const std::string& what) { return malformed("\"" + piece.name + "\" " + what); };
  if (piece.shape.size() > kMaxDims) return about("has too many dimensions");
  const Result<std::int64_t> span = span_bytes(piece.dtype, piece.shape, piece.strides);
  if (!span) return about(span.error().message);
  const auto size = static_cast<std::int64_t>(block.size());
  Tensor tensor{piece.name, piece.dtype, piece.shape, {}};
  if (*span > 0 && tensor.size_bytes() > size) return about("has more elements than its region has room for");
  if (piece.offset < 0 || piece.offset > size || *span > size - piece.offset)
    return about("lies beyond the end of its region");
  if (piece.offset % size_bytes(piece.dtype) != 0) return about("is not aligned");
  if (*span > 0 && piece.strides != dense_strides(piece.shape)) tensor.strides = piece.strides;
  const auto offset = static_cast<std::size_t>(piece.offset);
  const auto bytes = static_cast<std::size_t>(*span);
  if (bytes == 0) return tensor;
  if (!to_host && needs_no_check(piece.dtype, piece.shape)) {
    Result<Blob> kept = memory_.keep(block, offset, bytes);
    if (kept) tensor.bytes = std::move(*kept);
    if (kept) return tensor;
  }
  const auto* data = reinterpret_cast<const std::byte*>(block.address() + offset);
  Result<Blob> copy = block.to_host({nullptr, data, bytes});
  if (!copy) return copy.error();
  tensor.bytes = std::move(*copy);
  return tensor;
}

bool DeviceLender::given_back(const Place& place) {
  auto held = held_.extract(place.segment);
  if (held.empty()) return false;
  idle_.push_back(std::move(held.mapped()));
  return true;
}

std::vector<std::shared_ptr<DeviceBlock>> DeviceLender::leave() {
  std::vector<std::shared_ptr<DeviceBlock>> blocks = std::exchange(idle_, {});
  for (auto& [seq, loan] : std::exchange(lent_, {})) blocks.push_back(std::move(loan.block));
  for (auto& [number, block] : std::exchange(held_, {})) blocks.push_back(std::move(block));
  return blocks;
}

}  // namespace bulkhead
