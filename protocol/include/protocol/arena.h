// Memory that one process writes and others read, so that a tensor travels as a
// place instead of its bytes.
//
// Nothing is shared but bytes: no lock, no allocator, no list.  What lies where
// is said in messages (places.h).  A segment goes with the last process that
// maps it; nothing of it has a name in a file system.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "protocol/result.h"
#include "protocol/sealed_memory.h"
#include "protocol/tensor.h"
#include "protocol/unique_fd.h"

namespace bulkhead {

// Sealed memory (sealed_memory.h) with a number.  Any thread.
class Segment : public std::enable_shared_from_this<Segment> {
 public:
  // New and writable, here only.  Its memory is reserved now, so that a full
  // machine is an error here and no signal later.
  static Result<std::shared_ptr<Segment>> create(std::size_t bytes, PeerAccess access = PeerAccess::kRead);

  // Somebody else's, read-only.  Its seals and size are looked at before it is
  // mapped: an owner that could shrink it could kill the reader.
  static Result<std::shared_ptr<Segment>> adopt(UniqueFd fd);

  // Its name in this process, from 1, never given again.
  std::int64_t number() const { return number_; }
  int fd() const { return fd_.get(); }
  std::byte* data() const { return mapping_.data(); }
  std::size_t size() const { return mapping_.size(); }
  PeerAccess access() const { return access_; }
  // Of an adopted one: the same bytes at another address, to be written to.
  // Fails where its owner gives no leave.  One thread.
  Result<std::byte*> writable() const;

 private:
  Segment(UniqueFd fd, Mapping mapping, PeerAccess access);

  UniqueFd fd_;
  Mapping mapping_;
  PeerAccess access_;
  mutable Mapping writable_;
  std::int64_t number_;
};

// A piece of a segment of this process.  Whoever holds `owner` has it; with the
// last holder, on whatever thread, it may be given out again.
struct Slot {
  std::shared_ptr<void> owner;
  std::byte* data = nullptr;
  std::size_t size = 0;
  const Segment* segment = nullptr;

  // From here on nobody writes.
  Blob blob() const { return {owner, data, size, segment}; }
};

// Gives out slots and takes them back.  Memory once used is used again first:
// it is warm, and its readers have it mapped.  One thread; slots outlive it.
class Arena {
 public:
  // Of all its segments together.  `access`: of those that its slots are named to.
  explicit Arena(std::size_t most_bytes, PeerAccess access = PeerAccess::kRead)
      : most_bytes_(most_bytes), access_(access) {}

  // At least `bytes` of memory, aligned to 64, with whatever was there before.
  // Fails (unavailable) when the arena or the machine is full.
  Result<Slot> allocate(std::size_t bytes);

  std::size_t reserved_bytes() const { return reserved_bytes_; }
  // True once: a full arena is worth a line in a log, not one for each tensor.
  bool complains() { return !std::exchange(complained_, true); }

 private:
  // One segment, cut into slots of one size.
  struct Pool {
    Pool(std::shared_ptr<Segment> memory, std::size_t slot_bytes);
    std::shared_ptr<Segment> memory;
    std::size_t slot_bytes;
    std::vector<std::atomic<bool>> taken;
  };
  struct Hold;

  Error full(std::size_t bytes) const;
  static Slot take(const std::shared_ptr<Pool>& pool, std::size_t index, std::size_t bytes);

  std::size_t most_bytes_;
  PeerAccess access_;
  std::size_t reserved_bytes_ = 0;
  bool complained_ = false;
  std::vector<std::shared_ptr<Pool>> pools_;
};

// Smaller tensors are as quick to send as to name.
inline constexpr std::size_t kWorthSharing = 4096;

// Copies into the arena what of the batch is worth it, and neither in a segment yet nor on a GPU.
// Where there is no room it stays where it is, and is sent.
void share(Arena& arena, Batch& batch);

// A copy that nobody else can write to: in the arena, or outside of shared
// memory where there is no room.
Blob own_copy(Arena& arena, const Blob& bytes);

// A quarter of this machine's memory: what the segments of a process may take.
std::size_t default_arena_bytes();

}  // namespace bulkhead
