#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <utility>

#include "protocol/ring.h"
#include "shared_word.h"

namespace bulkhead {
namespace {

constexpr std::size_t kSmallBytes = 16384;  // a message up to this needs no memory of its own
constexpr std::size_t kRecordAlignment = 8;

Error malformed(std::string what) { return {ErrorCode::kMalformed, "the peer's ring " + std::move(what)}; }

}  // namespace

RingReader::RingReader(RingHeader& own, const RingHeader& peer, std::size_t peer_bytes)
    : own_(own),
      peer_(peer),
      bytes_(reinterpret_cast<const std::byte*>(&peer) + kRingHeaderBytes),
      size_(peer_bytes),
      small_(std::make_unique<std::byte[]>(kSmallBytes)) {
  CHECK(is_ring_size(peer_bytes));
}

Result<bool> RingReader::look() {
  const std::uint64_t head = read_shared(peer_.head);
  if (head == head_) return false;
  // Never backwards, and never more than the room that it knows of.
  const std::uint64_t filled = head - given_back_;
  if (filled > size_ || filled < head_ - given_back_) return malformed("has an impossible head");
  head_ = head;
  return true;
}

Result<bool> RingReader::next(Frames& frames) {
  if (stage_ == Stage::kCount) {
    if (!fill(&count_, sizeof count_)) return false;
    if (count_ == 0 || count_ > kMaxFrames)
      return malformed("has a message of " + std::to_string(count_) + " frames");
    lengths_.resize(count_);
    stage_ = Stage::kLengths;
  }
  if (stage_ == Stage::kLengths) {
    if (!fill(lengths_.data(), count_ * sizeof lengths_[0])) return false;
    total_ = 0;
    for (const std::uint32_t length : lengths_) {
      if (length > kMaxFrameBytes) return malformed("has a frame of " + std::to_string(length) + " bytes");
      total_ += length;
    }
    partial_.clear();
    frame_ = small_used_ = 0;
    stage_ = Stage::kBytes;
  }
  if (stage_ == Stage::kBytes) {
    if (!fill_frames()) return false;
    stage_ = Stage::kPadding;
  }
  std::array<std::byte, kRecordAlignment> ignored;
  const std::uint64_t size = sizeof count_ * (1 + std::uint64_t{count_}) + total_;
  if (!fill(ignored.data(), (kRecordAlignment - size % kRecordAlignment) % kRecordAlignment)) return false;
  stage_ = Stage::kCount;
  frames.swap(partial_);
  return true;
}

// Memory is taken for a frame when its first byte is there, so that nobody can
// make us take what he only announces.
bool RingReader::fill_frames() {
  for (; frame_ < count_; ++frame_) {
    const std::size_t length = lengths_[frame_];
    if (partial_.size() == frame_) {
      if (length > 0 && available() == 0) return false;
      partial_.push_back(memory_for(length));
    }
    // Ours, and nobody else has seen it yet.
    if (!fill(const_cast<std::byte*>(partial_[frame_].data), length)) return false;
  }
  return true;
}

Blob RingReader::memory_for(std::size_t size) {
  if (total_ <= kSmallBytes)
    return {nullptr, small_.get() + std::exchange(small_used_, small_used_ + size), size};
  const auto owner = std::make_shared_for_overwrite<std::byte[]>(size);
  return {owner, owner.get(), size};
}

// Goes on where the last call for the same item ended; true when it is whole.
bool RingReader::fill(void* to, std::size_t size) {
  const std::size_t now = std::min(size - filled_, available());
  take(static_cast<std::byte*>(to) + filled_, now);
  filled_ += now;
  if (filled_ < size) return false;
  filled_ = 0;
  return true;
}

void RingReader::take(std::byte* to, std::size_t size) {
  const std::size_t at = tail_ & (size_ - 1);
  const std::size_t before_end = std::min(size, size_ - at);
  std::memcpy(to, bytes_ + at, before_end);
  if (before_end < size) std::memcpy(to + before_end, bytes_, size - before_end);
  tail_ += size;
}

bool RingReader::give_back() {
  if (tail_ == given_back_) return false;
  given_back_ = tail_;
  write_shared(own_.tail, tail_);
  const std::uint32_t asks = read_shared(peer_.space_asks);
  if (asks == answered_) return false;
  answered_ = asks;
  return true;
}

Result<bool> RingReader::fall_asleep() {
  write_shared(own_.sleeps, own_.sleeps + 1);
  return look();
}

}  // namespace bulkhead
