// A stream of messages from one process to another through memory that only
// the sender can write (README.md, "Ring", has the layout and the reasons).
//
// Pure: no descriptor is rung and nobody waits here; ring_channel.h does that.
// The writer and the reader of one side belong to one thread.  The peer is not
// believed: its indices are read once and checked, its bytes are copied before
// anyone looks at them, and a lie is kMalformed, after which the object must
// not be used again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "protocol/codec.h"
#include "protocol/result.h"

namespace bulkhead {

inline constexpr std::size_t kRingHeaderBytes = 4096;  // in front of the ring: one page
inline constexpr std::size_t kMinRingBytes = 4096;
inline constexpr std::size_t kMaxRingBytes = std::size_t{64} << 20;
inline constexpr std::uint32_t kRingVersion = 1;

// The beginning of a segment.  Each side writes its own and reads the other's.
// What the sender of the bytes says and what their receiver says have a cache
// line each.
struct RingHeader {
  char magic[8];  // "bulkring"
  std::uint32_t version;
  std::uint32_t header_bytes;
  std::uint64_t ring_bytes;        // a power of two
  alignas(64) std::uint64_t head;  // bytes put into this ring since the beginning
  std::uint32_t space_asks;        // how often its writer wanted to be woken for want of room
  alignas(64) std::uint64_t tail;  // bytes taken out of the peer's ring
  std::uint32_t sleeps;            // how often its reader went to sleep
};
static_assert(sizeof(RingHeader) <= kRingHeaderBytes);
static_assert(offsetof(RingHeader, ring_bytes) == 16 && offsetof(RingHeader, head) == 64 &&
              offsetof(RingHeader, space_asks) == 72 && offsetof(RingHeader, tail) == 128 &&
              offsetof(RingHeader, sleeps) == 136);

// A power of two between the limits.
bool is_ring_size(std::size_t bytes);

// Makes zeroed memory of kRingHeaderBytes + `ring_bytes` a segment.
RingHeader& begin_ring(std::byte* segment, std::size_t ring_bytes);

// The peer's segment, before it is mapped: how large its ring is; kMalformed or
// kMismatch when it is not sealed memory with the header of a ring.
Result<std::size_t> check_ring(int fd);

class RingWriter {
 public:
  // `own` outlives it, and so does `peer`.
  explicit RingWriter(RingHeader& own);
  // Until the peer's segment is there the ring only fills up.
  void attach(const RingHeader& peer) { peer_ = &peer; }

  enum class Progress {
    kDone,  // all of the message is in the ring
    kPart,  // some of it is; the peer can begin while the caller goes on
    kFull,  // there is no room
  };
  // Puts in what there is room for and makes it visible.  Until kDone the next
  // call must be with the same frames.
  Result<Progress> write(const Frames& frames);

  // Whether the peer has to be woken, after write(): once for each of its
  // sleeps.
  bool must_wake();

  // Asks to be woken when there is room; true when there is already.
  Result<bool> ask_for_space();

 private:
  struct Part {
    const std::byte* data;
    std::size_t size;
  };
  Part part(const Frames& frames) const;
  void begin(const Frames& frames);
  Result<std::size_t> room(std::size_t wanted);
  Status read_tail();
  void put(const std::byte* from, std::size_t size);
  void publish();

  RingHeader& own_;
  std::byte* bytes_;
  const std::size_t size_;
  const RingHeader* peer_ = nullptr;
  std::uint64_t head_ = 0;       // ours alone; what the peer sees is own_.head
  std::uint64_t peer_tail_ = 0;  // as last read
  std::uint32_t woken_ = 0;      // the sleep of the peer that was ended last
  // Where in the message write() is.
  std::vector<std::uint32_t> record_;  // its count and lengths
  std::size_t padding_ = 0;
  std::size_t part_ = 0;  // 0 record_, then the frames, then the padding
  std::size_t offset_ = 0;
};

class RingReader {
 public:
  // `peer_bytes` is what check_ring() gave.  Both headers outlive it.
  RingReader(RingHeader& own, const RingHeader& peer, std::size_t peer_bytes);

  // Whether more has come than next() has been through.
  Result<bool> look();

  // The next whole message of what look() has seen; false when there is none.
  // Its frames stay readable until the next call.
  Result<bool> next(Frames& frames);

  // True when so much was taken out that the writer should know.
  bool owes_much() const { return tail_ - given_back_ >= size_ / 4; }
  // Gives the room back; true when the peer has to be woken for it.
  bool give_back();

  // Says that this side goes to sleep, then look()s once more: true when it
  // must not.
  Result<bool> fall_asleep();

 private:
  bool fill_frames();
  Blob memory_for(std::size_t size);
  bool fill(void* to, std::size_t size);
  void take(std::byte* to, std::size_t size);
  std::size_t available() const { return head_ - tail_; }

  enum class Stage { kCount, kLengths, kBytes, kPadding };

  RingHeader& own_;
  const RingHeader& peer_;
  const std::byte* bytes_;
  const std::size_t size_;
  std::uint64_t head_ = 0;  // the peer's, as last looked at
  std::uint64_t tail_ = 0;  // ours alone; what the peer sees is own_.tail
  std::uint64_t given_back_ = 0;
  std::uint32_t answered_ = 0;  // the peer's last request for room that was served
  // Where in a message next() is.
  Stage stage_ = Stage::kCount;
  std::size_t filled_ = 0;  // of the item that is being copied
  std::uint32_t count_ = 0;
  std::vector<std::uint32_t> lengths_;
  std::uint64_t total_ = 0;  // of lengths_
  Frames partial_;
  std::size_t frame_ = 0;               // the one being filled
  std::unique_ptr<std::byte[]> small_;  // the bytes of a small message
  std::size_t small_used_ = 0;
};

}  // namespace bulkhead
