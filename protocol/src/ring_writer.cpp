#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <string>
#include <unistd.h>

#include "protocol/ring.h"
#include "protocol/sealed_memory.h"
#include "shared_word.h"

namespace bulkhead {
namespace {

constexpr char kRingMagic[8] = {'b', 'u', 'l', 'k', 'r', 'i', 'n', 'g'};
constexpr std::size_t kRecordAlignment = 8;
constexpr std::array<std::byte, kRecordAlignment> kZeros{};

}  // namespace

bool is_ring_size(std::size_t bytes) {
  return bytes >= kMinRingBytes && bytes <= kMaxRingBytes && std::has_single_bit(bytes);
}

RingHeader& begin_ring(std::byte* segment, std::size_t ring_bytes) {
  CHECK(is_ring_size(ring_bytes), std::to_string(ring_bytes));
  auto& header = *reinterpret_cast<RingHeader*>(segment);
  std::memcpy(header.magic, kRingMagic, sizeof kRingMagic);
  header.version = kRingVersion;
  header.header_bytes = kRingHeaderBytes;
  header.ring_bytes = ring_bytes;
  return header;
}

Result<std::size_t> check_ring(int fd) {
  const Result<SealedSize> memory = check_sealed_memory(fd);
  if (!memory) return memory.error();
  if (memory->access != PeerAccess::kRead)
    return Error{ErrorCode::kMalformed, "its memory is not sealed against writing"};
  const std::size_t size = memory->bytes;
  RingHeader header{};
  if (::pread(fd, &header, sizeof header, 0) != static_cast<ssize_t>(sizeof header))
    return Error{ErrorCode::kMalformed, "its memory is too small for a ring"};
  if (std::memcmp(header.magic, kRingMagic, sizeof kRingMagic) != 0)
    return Error{ErrorCode::kMalformed, "its memory is not a ring"};
  if (header.version != kRingVersion || header.header_bytes != kRingHeaderBytes) {
    return Error{ErrorCode::kMismatch, "its ring has version " + std::to_string(header.version) +
                                           ", this side speaks " + std::to_string(kRingVersion)};
  }
  if (!is_ring_size(header.ring_bytes) || size != kRingHeaderBytes + header.ring_bytes) {
    return Error{ErrorCode::kMalformed, "its memory of " + std::to_string(size) +
                                            " bytes does not hold a ring of " +
                                            std::to_string(header.ring_bytes)};
  }
  return static_cast<std::size_t>(header.ring_bytes);
}

RingWriter::RingWriter(RingHeader& own)
    : own_(own), bytes_(reinterpret_cast<std::byte*>(&own) + kRingHeaderBytes), size_(own.ring_bytes) {}

Result<RingWriter::Progress> RingWriter::write(const Frames& frames) {
  if (part_ == 0 && offset_ == 0) begin(frames);
  std::size_t allowed = size_ / 4;
  for (; part_ < frames.size() + 2; ++part_, offset_ = 0) {
    const Part now = part(frames);
    while (offset_ < now.size) {
      if (allowed == 0) {
        publish();
        return Progress::kPart;
      }
      const Result<std::size_t> free = room(now.size - offset_);
      if (!free) return free.error();
      if (*free == 0) {
        publish();
        return Progress::kFull;
      }
      const std::size_t size = std::min({now.size - offset_, *free, allowed});
      put(now.data + offset_, size);
      offset_ += size;
      allowed -= size;
    }
  }
  part_ = 0;
  publish();
  return Progress::kDone;
}

void RingWriter::begin(const Frames& frames) {
  CHECK(!frames.empty() && frames.size() <= kMaxFrames);
  record_.clear();
  record_.push_back(static_cast<std::uint32_t>(frames.size()));
  std::size_t total = sizeof(std::uint32_t) * (1 + frames.size());
  for (const Blob& frame : frames) {
    CHECK(frame.size <= kMaxFrameBytes);
    record_.push_back(static_cast<std::uint32_t>(frame.size));
    total += frame.size;
  }
  padding_ = (kRecordAlignment - total % kRecordAlignment) % kRecordAlignment;
}

RingWriter::Part RingWriter::part(const Frames& frames) const {
  if (part_ == 0)
    return {reinterpret_cast<const std::byte*>(record_.data()), record_.size() * sizeof(std::uint32_t)};
  if (part_ <= frames.size()) return {frames[part_ - 1].data, frames[part_ - 1].size};
  return {kZeros.data(), padding_};
}

Result<std::size_t> RingWriter::room(std::size_t wanted) {
  std::size_t free = size_ - (head_ - peer_tail_);
  if (free >= wanted || peer_ == nullptr) return free;
  if (const Status read = read_tail(); !read) return read.error();
  return size_ - (head_ - peer_tail_);
}

Status RingWriter::read_tail() {
  const std::uint64_t tail = read_shared(peer_->tail);
  // What is between the last tail and our head; also when either has wrapped.
  if (tail - peer_tail_ > head_ - peer_tail_)
    return Error{ErrorCode::kMalformed, "the peer says that it has read what nobody sent"};
  peer_tail_ = tail;
  return ok_status();
}

void RingWriter::put(const std::byte* from, std::size_t size) {
  const std::size_t at = head_ & (size_ - 1);
  const std::size_t before_end = std::min(size, size_ - at);
  std::memcpy(bytes_ + at, from, before_end);
  if (before_end < size) std::memcpy(bytes_, from + before_end, size - before_end);
  head_ += size;
}

void RingWriter::publish() {
  if (own_.head != head_) write_shared(own_.head, head_);
}

bool RingWriter::must_wake() {
  if (peer_ == nullptr) return false;
  const std::uint32_t sleeps = read_shared(peer_->sleeps);
  if (sleeps == woken_) return false;
  woken_ = sleeps;
  return true;
}

Result<bool> RingWriter::ask_for_space() {
  write_shared(own_.space_asks, own_.space_asks + 1);
  if (peer_ == nullptr) return false;
  const std::uint64_t before = peer_tail_;
  if (const Status read = read_tail(); !read) return read.error();
  return peer_tail_ != before;
}

}  // namespace bulkhead
