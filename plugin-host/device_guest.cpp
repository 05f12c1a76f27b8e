#include "device_guest.h"

#include <algorithm>
#include <charconv>
#include <utility>

namespace bulkhead {
namespace {

constexpr std::size_t kAlignment = 256;
constexpr auto kPatience = std::chrono::seconds(20);  // for the rank's copies
constexpr std::string_view kCuda = "cuda:";

std::size_t aligned(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

const std::byte* pointer(DeviceAddress address) { return reinterpret_cast<const std::byte*>(address); }

}  // namespace

Result<std::unique_ptr<DeviceGuest>> DeviceGuest::open(const std::string& device) {
  int ordinal = 0;
  const char* end = device.data() + device.size();
  if (!device.starts_with(kCuda) || std::from_chars(device.data() + kCuda.size(), end, ordinal).ptr != end) {
    return Error{ErrorCode::kUnavailable, "the rank is on " + device};
  }
  const Result<DeviceCalls> calls = load_device_calls();
  if (!calls) return calls.error();
  auto opened = Device::open(*calls, ordinal);
  if (!opened) return opened.error();
  return std::unique_ptr<DeviceGuest>(new DeviceGuest(std::move(*opened)));
}

Status DeviceGuest::begin(Call& call) {
  is_lent_ = call.region.has_value();
  if (Status there = is_lent_ ? open_region(*call.region) : copy_in(call.batch); !there) return there;
  if (!is_lent_) call.region.emplace();  // from here on it says that the batch lies on a GPU
  call.batch.clear();
  call.writable.clear();
  for (const Piece& piece : inputs_) {
    const Result<std::int64_t> span = span_bytes(piece.dtype, piece.shape, piece.strides);
    if (!span) return span.error();
    const auto bytes = static_cast<std::size_t>(*span);
    if (piece.offset < 0 || static_cast<std::size_t>(piece.offset) > size_ ||
        bytes > size_ - static_cast<std::size_t>(piece.offset)) {
      return Error{ErrorCode::kMalformed, "\"" + piece.name + "\" lies beyond the end of its region"};
    }
    Tensor tensor;
    tensor.name = piece.name;
    tensor.dtype = piece.dtype;
    tensor.shape = piece.shape;
    tensor.strides = piece.strides;
    tensor.bytes.data = pointer(begin_ + static_cast<DeviceAddress>(piece.offset));
    tensor.bytes.size = bytes;
    call.batch.push_back(std::move(tensor));
    call.writable.push_back(piece.name);
    used_ = std::max(used_, static_cast<std::size_t>(piece.offset) + bytes);
  }
  return ok_status();
}

Status DeviceGuest::open_region(const Region& region) {
  const DeviceCalls& calls = device_->calls();
  if (Status entered = device_->enter(); !entered) return entered;
  auto found = opened_.find(region.segment);
  if (found == opened_.end()) {
    const Result<IpcHandle> memory = ipc_handle_of(region.memory);
    const Result<IpcHandle> ready = ipc_handle_of(region.ready);
    if (!memory || !ready) return memory ? ready.error() : memory.error();
    Opened opened;
    const auto done = [&](int result) { return device_->done(result, "open the rank's memory of GPU"); };
    const int mapped = calls.ipc_open_mem_handle(&opened.address, *memory, kIpcLazyEnablePeerAccess);
    if (Status there = done(mapped); !there) return there;
    if (Status there = done(calls.ipc_open_event_handle(&opened.ready, *ready)); !there) return there;
    found = opened_.emplace(region.segment, opened).first;
  }
  begin_ = found->second.address;
  size_ = static_cast<std::size_t>(std::max<std::int64_t>(region.bytes, 0));
  used_ = 0;
  inputs_ = region.tensors;
  return device_->wait(found->second.ready, kPatience);
}

// The worker lends nothing here: the batch came through host memory.
Status DeviceGuest::copy_in(const Batch& batch) {
  std::size_t bytes = 0;
  for (const Tensor& tensor : batch) bytes += aligned(tensor.bytes.size);
  if (own_ == nullptr || own_->size() < 2 * bytes) {
    auto block = DeviceBlock::allocate(device_, std::max<std::size_t>(2 * bytes, kAlignment), false);
    if (!block) return block.error();
    own_ = std::move(*block);
  }
  begin_ = own_->address();
  size_ = own_->size();
  used_ = 0;
  inputs_.clear();
  std::size_t offset = 0;
  for (const Tensor& tensor : batch) {
    const auto source = reinterpret_cast<DeviceAddress>(tensor.bytes.data);
    if (Status filled = own_->fill(offset, source, tensor.bytes.size); !filled) return filled;
    inputs_.push_back({tensor.name, "", static_cast<std::int64_t>(offset), tensor.dtype, tensor.shape,
                       tensor.strides.empty() ? dense_strides(tensor.shape) : tensor.strides});
    offset += aligned(tensor.bytes.size);
  }
  return device_->settle();
}

std::optional<Slot> DeviceGuest::allocate(std::size_t bytes) {
  const std::size_t offset = aligned(used_);
  if (offset > size_ || bytes > size_ - offset || !device_->enter()) return std::nullopt;
  if (device_->calls().memset_async(begin_ + offset, 0, bytes, device_->stream()) != 0) return std::nullopt;
  if (!device_->settle()) return std::nullopt;
  used_ = offset + bytes;
  auto* data = const_cast<std::byte*>(pointer(begin_ + offset));
  return Slot{std::make_shared<char>(), data, bytes, nullptr};
}

Status DeviceGuest::end(Reply& reply) {
  if (Status entered = device_->enter(); !entered) return entered;
  const int result = device_->calls().ctx_synchronize();
  if (Status worked = device_->done(result, "go on with GPU"); !worked) return worked;
  std::vector<Piece> outputs = std::exchange(reply.pieces, {});
  for (Piece& piece : outputs) {
    const auto of = std::ranges::find(inputs_, piece.of, &Piece::name);
    CHECK(of != inputs_.end(), piece.of);  // the SDK knows no other
    piece.of.clear();
    piece.offset += of->offset;
  }
  for (const Tensor& tensor : std::exchange(reply.batch, {})) {
    const DeviceAddress address =
        tensor.bytes.size == 0 ? begin_ : reinterpret_cast<DeviceAddress>(tensor.bytes.data);
    outputs.push_back({tensor.name, "", static_cast<std::int64_t>(address - begin_), tensor.dtype,
                       tensor.shape, dense_strides(tensor.shape)});
  }
  if (is_lent_) {
    reply.in_region = std::move(outputs);
    return ok_status();
  }
  for (const Piece& piece : outputs) {
    Result<Tensor> copy = copy_out(piece);
    if (!copy) return copy.error();
    reply.batch.push_back(std::move(*copy));
  }
  return ok_status();
}

Result<Tensor> DeviceGuest::copy_out(const Piece& piece) const {
  const Result<std::int64_t> span = span_bytes(piece.dtype, piece.shape, piece.strides);
  if (!span) return span.error();
  Tensor tensor;
  tensor.name = piece.name;
  tensor.dtype = piece.dtype;
  tensor.shape = piece.shape;
  tensor.strides = piece.strides;
  if (*span > 0) {
    Blob from;
    from.data = pointer(begin_ + static_cast<DeviceAddress>(piece.offset));
    from.size = static_cast<std::size_t>(*span);
    Result<Blob> copy = own_->to_host(from);
    if (!copy) return copy.error();
    tensor.bytes = std::move(*copy);
  }
  if (*span == 0 || piece.strides == dense_strides(piece.shape)) tensor.strides.clear();
  return dense(tensor);
}

void DeviceGuest::forget() {
  if (device_->enter()) {
    for (const auto& [number, opened] : opened_) {
      device_->calls().event_destroy(opened.ready);
      device_->calls().ipc_close_mem_handle(opened.address);
    }
  }
  opened_.clear();
}

}  // namespace bulkhead
