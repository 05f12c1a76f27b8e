#include "protocol/arena.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>
#include <unistd.h>
#include <utility>

#include "protocol/log.h"

namespace bulkhead {
namespace {

constexpr std::size_t kSmallestSlot = std::size_t{4} << 10;
constexpr std::size_t kLargestShared = std::size_t{1} << 20;  // of slots that share a segment
constexpr std::size_t kSharedSegment = std::size_t{4} << 20;

std::string mib(std::size_t bytes) { return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MiB"; }

// Powers of two, and above 1 MiB four steps between two of them.
std::size_t slot_size(std::size_t bytes) {
  const std::size_t power = std::bit_ceil(std::max(bytes, kSmallestSlot));
  if (power <= kLargestShared) return power;
  const std::size_t step = power / 8;
  return (bytes + step - 1) / step * step;
}

}  // namespace

// ----- Segment -----

Segment::Segment(UniqueFd fd, Mapping mapping, PeerAccess access)
    : fd_(std::move(fd)), mapping_(std::move(mapping)), access_(access), number_([] {
        static std::atomic<std::int64_t> count{0};
        return ++count;
      }()) {}

Result<std::shared_ptr<Segment>> Segment::create(std::size_t bytes, PeerAccess access) {
  Result<SealedMemory> memory = make_sealed_memory("bulkhead-arena", bytes, access);
  if (!memory) return memory.error();
  return std::shared_ptr<Segment>(new Segment(std::move(memory->fd), std::move(memory->writable), access));
}

Result<std::shared_ptr<Segment>> Segment::adopt(UniqueFd fd) {
  const Result<SealedSize> size = check_sealed_memory(fd.get());
  if (!size) return size.error();
  if (size->bytes == 0) return Error{ErrorCode::kMalformed, "its memory is empty"};
  Result<Mapping> mapping = map_sealed_memory(fd.get(), size->bytes);
  if (!mapping) return mapping.error();
  return std::shared_ptr<Segment>(new Segment(std::move(fd), std::move(*mapping), size->access));
}

Result<std::byte*> Segment::writable() const {
  if (access_ != PeerAccess::kWrite)
    return Error{ErrorCode::kMismatch, "the memory is its owner's alone to write to"};
  if (writable_.data() == nullptr) {
    Result<Mapping> mapping = map_sealed_memory(fd_.get(), mapping_.size(), PeerAccess::kWrite);
    if (!mapping) return mapping.error();
    writable_ = std::move(*mapping);
  }
  return writable_.data();
}

// ----- Arena -----

// A slot that somebody has.
struct Arena::Hold {
  Hold(std::shared_ptr<Pool> from, std::size_t at) : pool(std::move(from)), index(at) {}
  ~Hold() { pool->taken[index].store(false, std::memory_order_release); }
  Hold(const Hold&) = delete;
  Hold& operator=(const Hold&) = delete;
  std::shared_ptr<Pool> pool;
  std::size_t index;
};

Arena::Pool::Pool(std::shared_ptr<Segment> from, std::size_t bytes)
    : memory(std::move(from)), slot_bytes(bytes), taken(memory->size() / bytes) {}

Result<Slot> Arena::allocate(std::size_t bytes) {
  if (bytes > most_bytes_) return full(bytes);
  const std::size_t size = slot_size(bytes);
  for (const auto& pool : pools_) {
    if (pool->slot_bytes != size) continue;
    for (std::size_t i = 0; i < pool->taken.size(); ++i) {
      if (!pool->taken[i].load(std::memory_order_acquire)) return take(pool, i, bytes);
    }
  }
  const std::size_t segment_bytes = size <= kLargestShared ? std::max(size, kSharedSegment) : size;
  if (segment_bytes > most_bytes_ - reserved_bytes_) {
    // What nobody uses, of other sizes, makes room.
    std::erase_if(pools_, [&](const std::shared_ptr<Pool>& pool) {
      const bool idle = std::none_of(pool->taken.begin(), pool->taken.end(),
                                     [](const auto& taken) { return taken.load(std::memory_order_acquire); });
      if (idle) reserved_bytes_ -= pool->memory->size();
      return idle;
    });
  }
  if (segment_bytes > most_bytes_ - reserved_bytes_) {
    return full(bytes);
  }
  Result<std::shared_ptr<Segment>> segment = Segment::create(segment_bytes, access_);
  if (!segment) return segment.error();
  reserved_bytes_ += segment_bytes;
  pools_.push_back(std::make_shared<Pool>(std::move(*segment), size));
  return take(pools_.back(), 0, bytes);
}

Error Arena::full(std::size_t bytes) const {
  return {ErrorCode::kUnavailable, "no room for " + mib(bytes) + " of shared memory: of " + mib(most_bytes_) +
                                       ", " + mib(reserved_bytes_) + " are in use"};
}

Slot Arena::take(const std::shared_ptr<Pool>& pool, std::size_t index, std::size_t bytes) {
  pool->taken[index].store(true, std::memory_order_relaxed);
  std::byte* data = pool->memory->data() + index * pool->slot_bytes;
  return {std::make_shared<Hold>(pool, index), data, bytes, pool->memory.get()};
}

// ----- Batches -----

Blob own_copy(Arena& arena, const Blob& bytes) {
  Result<Slot> slot = arena.allocate(bytes.size);
  if (!slot) {
    if (arena.complains()) spdlog::warn("{}; bytes are sent instead", slot.error().message);
    return Blob::of(std::vector<std::byte>(bytes.data, bytes.data + bytes.size));
  }
  if (bytes.size > 0) std::memcpy(slot->data, bytes.data, bytes.size);
  return slot->blob();
}

void share(Arena& arena, Batch& batch) {
  for (Tensor& tensor : batch) {
    const bool elsewhere = tensor.bytes.segment != nullptr || tensor.bytes.device != nullptr;
    if (elsewhere || tensor.bytes.size < kWorthSharing) continue;
    Blob copy = own_copy(arena, tensor.bytes);
    if (copy.segment != nullptr) tensor.bytes = std::move(copy);
  }
}

std::size_t default_arena_bytes() {
  const long pages = ::sysconf(_SC_PHYS_PAGES);
  const long page = ::sysconf(_SC_PAGESIZE);
  return pages > 0 && page > 0 ? static_cast<std::size_t>(pages) / 4 * static_cast<std::size_t>(page)
                               : std::size_t{1} << 30;
}

}  // namespace bulkhead
