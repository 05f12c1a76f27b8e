#include "protocol/device_memory.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <thread>
#include <utility>

#include "protocol/log.h"

namespace bulkhead {
namespace {

// CUDA IPC opens whole pages of the driver's: nothing else may lie in them.
constexpr std::size_t kPage = std::size_t{2} << 20;
constexpr std::size_t kSmallest = std::size_t{64} << 10;  // of our own
constexpr std::size_t kWorthPinning = std::size_t{1} << 20;

std::size_t block_size(std::size_t bytes, bool shared) {
  const std::size_t power = std::bit_ceil(std::max(bytes, kSmallest));
  const std::size_t step = std::max(power / 8, shared ? kPage : kSmallest);
  return (std::max(bytes, kSmallest) + step - 1) / step * step;
}

DeviceAddress address_of(const Blob& bytes) { return reinterpret_cast<DeviceAddress>(bytes.data); }

std::int64_t next_number() {
  static std::atomic<std::int64_t> count{0};
  return --count;
}

}  // namespace

// ----- Device -----

Result<std::shared_ptr<const Device>> Device::open(const DeviceCalls& calls, int ordinal) {
  std::shared_ptr<Device> device(new Device(calls, ordinal));
  if (Status begun = device->begin(); !begun) return begun.error();
  return std::shared_ptr<const Device>(std::move(device));
}

Status Device::begin() {
  int device = 0;
  DeviceUuid uuid{};
  if (Status done_so = done(calls_.init(0), "use CUDA"); !done_so) return done_so;
  if (Status done_so = done(calls_.device_get(&device, ordinal_), "find the GPU"); !done_so) return done_so;
  if (Status done_so = done(calls_.device_get_uuid(&uuid, device), "name the GPU"); !done_so) return done_so;
  if (Status done_so = done(calls_.device_total_mem(&total_bytes_, device), "ask the GPU"); !done_so)
    return done_so;
  // Torch's own context, kept for as long as the process lives.
  if (Status done_so = done(calls_.primary_ctx_retain(&context_, device), "open the GPU"); !done_so)
    return done_so;
  if (Status entered = enter(); !entered) return entered;
  IpcHandle digits{};
  std::memcpy(digits.bytes, uuid.bytes, sizeof uuid.bytes);
  uuid_ = to_text(digits).substr(0, 2 * sizeof uuid.bytes);
  return done(calls_.stream_create(&stream_, kStreamNonBlocking), "make a stream");
}

Status Device::enter() const { return done(calls_.ctx_set_current(context_), "enter the GPU's context"); }

Status Device::done(int result, const char* doing) const {
  if (result == 0) return ok_status();
  const char* text = nullptr;
  if (calls_.get_error_string(result, &text) != 0 || text == nullptr) text = "unknown error";
  return Error{ErrorCode::kUnavailable, std::string("cannot ") + doing + " " + std::to_string(ordinal_) +
                                            ": " + text + " (" + std::to_string(result) + ")"};
}

Status Device::settle() const {
  if (Status entered = enter(); !entered) return entered;
  return done(calls_.stream_synchronize(stream_), "wait for a copy on GPU");
}

Status Device::wait(DeviceEvent event, std::chrono::milliseconds patience) const {
  if (Status entered = enter(); !entered) return entered;
  const auto begin = std::chrono::steady_clock::now();
  for (;;) {
    const int result = calls_.event_query(event);
    if (result != kDeviceNotReady) return done(result, "wait for a copy on GPU");
    const auto waited = std::chrono::steady_clock::now() - begin;
    if (waited > patience) return Error{ErrorCode::kTimeout, "a copy on the GPU has not come"};
    // Copies take microseconds; what takes longer waits behind other work.
    if (waited > std::chrono::milliseconds(1)) std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
}

// ----- DeviceBlock -----

Result<std::shared_ptr<DeviceBlock>> DeviceBlock::allocate(std::shared_ptr<const Device> device,
                                                           std::size_t size, bool shared) {
  std::shared_ptr<DeviceBlock> block(new DeviceBlock(std::move(device), size));
  if (Status begun = block->begin(shared); !begun) return begun.error();
  return block;
}

Status DeviceBlock::begin(bool shared) {
  const DeviceCalls& calls = device_->calls();
  if (Status entered = device_->enter(); !entered) return entered;
  const auto done = [&](int result) { return device_->done(result, "get memory of GPU"); };
  if (Status got = done(calls.mem_alloc(&address_, size_)); !got) return got;
  const unsigned across = shared ? kEventInterprocess : 0;
  if (Status got = done(calls.event_create(&ready_, kEventWithoutTiming | across)); !got) return got;
  if (Status got = done(calls.event_create(&used_, kEventWithoutTiming)); !got) return got;
  if (!shared) return ok_status();
  IpcHandle memory{}, ready{};
  if (Status got = done(calls.ipc_get_mem_handle(&memory, address_)); !got) return got;
  if (Status got = done(calls.ipc_get_event_handle(&ready, ready_)); !got) return got;
  memory_handle_ = to_text(memory);
  ready_handle_ = to_text(ready);
  number_ = next_number();
  return ok_status();
}

DeviceBlock::~DeviceBlock() {
  if (!device_->enter()) return;
  for (const DeviceEvent event : {ready_, used_}) {
    if (event != nullptr) device_->calls().event_destroy(event);
  }
  if (address_ != 0) device_->calls().mem_free(address_);
}

Status DeviceBlock::fill(std::size_t offset, DeviceAddress source, std::size_t bytes) {
  CHECK(offset <= size_ && bytes <= size_ - offset);
  if (bytes == 0) return ok_status();
  if (Status entered = device_->enter(); !entered) return entered;
  return device_->done(device_->calls().memcpy_async(address_ + offset, source, bytes, device_->stream()),
                       "copy to GPU");
}

Status DeviceBlock::finish() {
  return device_->done(device_->calls().event_record(ready_, device_->stream()), "mark a copy on GPU");
}

Status DeviceBlock::begin_use(DeviceStream stream) const {
  if (Status entered = device_->enter(); !entered) return entered;
  return device_->done(device_->calls().stream_wait_event(stream, ready_, 0), "wait for a copy on GPU");
}

void DeviceBlock::end_use(DeviceStream stream) const {
  if (device_->enter()) device_->calls().event_record(used_, stream);
}

Result<Blob> DeviceBlock::to_host(const Blob& bytes) const {
  if (Status entered = device_->enter(); !entered) return entered.error();
  std::vector<std::byte> copy(bytes.size);
  const int result = device_->calls().memcpy_async(reinterpret_cast<DeviceAddress>(copy.data()),
                                                   address_of(bytes), bytes.size, device_->stream());
  if (Status copied = device_->done(result, "copy from GPU"); !copied) return copied.error();
  if (Status settled = device_->settle(); !settled) return settled.error();
  return Blob::of(std::move(copy));
}

// ----- DeviceMemory -----

DeviceMemory::~DeviceMemory() {
  if (!device_->settle()) return;
  for (const auto& [segment, worked] : pinned_) {
    if (worked) device_->calls().mem_host_unregister(segment->data());
  }
}

Result<std::shared_ptr<DeviceBlock>> DeviceMemory::allocate(std::size_t bytes, bool shared) {
  const std::size_t size = block_size(bytes, shared);
  if (bytes > most_bytes_ || size > most_bytes_ - reserved_bytes_) {
    return Error{ErrorCode::kUnavailable, "no room for " + std::to_string(size >> 20) +
                                              " MiB of the GPU's memory: of " +
                                              std::to_string(most_bytes_ >> 20) + " MiB, " +
                                              std::to_string(reserved_bytes_ >> 20) + " are in use"};
  }
  auto block = DeviceBlock::allocate(device_, size, shared);
  if (block) reserved_bytes_ += size;
  return block;
}

Result<std::shared_ptr<DeviceBlock>> DeviceMemory::take_shared(std::size_t bytes) {
  const std::size_t size = block_size(bytes, true);
  const auto found = std::ranges::find_if(idle_, [&](const auto& block) { return block->size() == size; });
  if (found == idle_.end()) return allocate(bytes, true);
  std::shared_ptr<DeviceBlock> block = std::move(*found);
  idle_.erase(found);
  return block;
}

Status DeviceMemory::fill(DeviceBlock& block, std::size_t offset, const Blob& source) {
  if (source.segment != nullptr && source.size >= kWorthPinning) pin(*source.segment);
  if (source.device != nullptr) {
    if (Status begun = source.device->begin_use(device_->stream()); !begun) return begun;
  }
  return block.fill(offset, address_of(source), source.size);
}

// Once for each segment.  What nobody has any more but this list is let go.
void DeviceMemory::pin(const Segment& segment) {
  auto shared = segment.shared_from_this();
  if (pinned_.contains(shared) || !device_->enter()) return;
  std::erase_if(pinned_, [&](const auto& entry) {
    if (entry.first.use_count() > 1) return false;
    if (entry.second) device_->calls().mem_host_unregister(entry.first->data());
    return true;
  });
  const int result = device_->calls().mem_host_register(segment.data(), segment.size(), 0);
  pinned_.emplace(std::move(shared), result == 0);
}

Result<Blob> DeviceMemory::keep(const DeviceBlock& block, std::size_t offset, std::size_t bytes) {
  const std::size_t size = block_size(bytes, false);
  const auto is_free = [&](const auto& own) {
    return own->size() == size && !own->taken_.load(std::memory_order_acquire);
  };
  auto found = std::ranges::find_if(own_, is_free);
  if (found == own_.end()) {
    Result<std::shared_ptr<DeviceBlock>> made = allocate(bytes, false);
    if (!made) return made.error();
    own_.push_back(std::move(*made));
    found = own_.end() - 1;
  }
  DeviceBlock& own = **found;
  const DeviceCalls& calls = device_->calls();
  if (Status entered = device_->enter(); !entered) return entered.error();
  const int waited = calls.stream_wait_event(device_->stream(), own.used_, 0);
  if (Status queued = device_->done(waited, "wait for a reader on GPU"); !queued) return queued.error();
  if (Status filled = own.fill(0, block.address() + offset, bytes); !filled) return filled.error();
  if (Status finished = own.finish(); !finished) return finished.error();
  own.taken_.store(true, std::memory_order_relaxed);
  std::shared_ptr<const DeviceBlock> owner(
      &own, [block = *found](const DeviceBlock*) { block->taken_.store(false, std::memory_order_release); });
  const auto* data = reinterpret_cast<const std::byte*>(own.address());
  return Blob{std::move(owner), data, bytes, nullptr, &own};
}

// ----- Batches -----

Batch in_host_memory(Batch batch) {
  for (Tensor& tensor : batch) {
    if (tensor.bytes.device == nullptr) continue;
    Result<Blob> copy = tensor.bytes.device->to_host(tensor.bytes);
    CHECK(copy.ok(), copy.error().message);
    tensor.bytes = std::move(*copy);
  }
  return batch;
}

}  // namespace bulkhead
