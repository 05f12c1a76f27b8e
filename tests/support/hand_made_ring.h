// A peer of a ring channel made by hand from protocol/README.md, "Ring", with
// none of the channel's code, so that it can also lie.  Every part of it may be
// changed before it is shown.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <fcntl.h>
#include <string>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include "protocol/codec.h"
#include "protocol/fd_passing.h"
#include "protocol/local_socket.h"
#include "protocol/unique_fd.h"

namespace bulkhead {

class HandMadeRing {
 public:
  static constexpr std::size_t kHeader = 4096;
  static constexpr int kAllSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL | 0x0010 /* FUTURE_WRITE */;

  std::size_t ring_bytes = 4096;
  int seals = kAllSeals;
  std::string greeting = "bulkring 1";

  explicit HandMadeRing(UniqueFd with) : socket(std::move(with)) {}
  ~HandMadeRing() {
    if (segment != nullptr) ::munmap(segment, size_);
    if (theirs != nullptr) ::munmap(const_cast<char*>(theirs), their_size_);
  }
  HandMadeRing(const HandMadeRing&) = delete;
  HandMadeRing& operator=(const HandMadeRing&) = delete;

  // The memory and the bell, not yet shown to anybody.
  void make() {
    size_ = kHeader + ring_bytes;
    memory = UniqueFd(::memfd_create("hand-made", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    CHECK(::posix_fallocate(memory.get(), 0, static_cast<off_t>(size_)) == 0);
    segment = static_cast<char*>(::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0));
    CHECK(segment != MAP_FAILED);
    std::memcpy(segment, "bulkring", 8);
    put32(8, 1);
    put32(12, 4096);
    put64(16, ring_bytes);
    bell = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  }
  void seal() { CHECK(seals == 0 || ::fcntl(memory.get(), F_ADD_SEALS, seals) == 0); }
  void show() {
    const std::array fds{memory.get(), bell.get()};
    CHECK(send_fds(socket.get(), greeting, fds).ok());
  }
  // What the other side has shown.
  void see() {
    auto received = receive_fds(socket.get(), 64, 2);
    CHECK(received.ok() && received->kind == ReceivedFds::Kind::kPacket);
    CHECK(received->bytes == "bulkring 1", received->bytes);
    their_bell = std::move(received->fds[1]);
    their_size_ = static_cast<std::size_t>(::lseek(received->fds[0].get(), 0, SEEK_END));
    void* view = ::mmap(nullptr, their_size_, PROT_READ, MAP_SHARED, received->fds[0].get(), 0);
    CHECK(view != MAP_FAILED);
    theirs = static_cast<const char*>(view);
  }

  // Puts a message into the ring at its head and shows it.  Must fit.
  void put(const Frames& frames) {
    std::string record;
    const auto add32 = [&](std::size_t value) {
      const auto word = static_cast<std::uint32_t>(value);
      record.append(reinterpret_cast<const char*>(&word), sizeof word);
    };
    add32(frames.size());
    for (const Blob& frame : frames) add32(frame.size);
    for (const Blob& frame : frames) record += frame.text();
    record.resize((record.size() + 7) / 8 * 8);
    put_bytes(record);
  }
  void put_bytes(const std::string& bytes) {
    for (const char c : bytes) segment[kHeader + head++ % ring_bytes] = c;
    put64(64, head);
  }
  void ring() { CHECK(::eventfd_write(their_bell.get(), 1) == 0); }
  // The whole messages that have come since, at most a ring full.
  std::vector<Frames> take() {
    std::vector<Frames> messages;
    const std::uint64_t their_head = get64(theirs, 64);
    const std::uint64_t their_bytes = get64(theirs, 16);
    const auto next = [&](std::size_t size) {
      std::string bytes;
      for (std::size_t i = 0; i < size; ++i) bytes += theirs[kHeader + tail++ % their_bytes];
      return bytes;
    };
    const auto word = [&] {
      std::uint32_t value = 0;
      std::memcpy(&value, next(4).data(), 4);
      return value;
    };
    for (std::uint64_t begin = tail; tail + 8 <= their_head; begin = tail) {
      std::vector<std::uint32_t> lengths(word());
      for (std::uint32_t& length : lengths) length = word();
      Frames frames;
      for (const std::uint32_t length : lengths) frames.push_back(Blob::of(next(length)));
      tail = (tail + 7) / 8 * 8;
      if (tail > their_head) {  // not whole yet
        tail = begin;
        break;
      }
      messages.push_back(std::move(frames));
    }
    put64(128, tail);
    return messages;
  }
  bool rung() const {
    eventfd_t count = 0;
    return ::eventfd_read(bell.get(), &count) == 0;
  }

  void put32(std::size_t at, std::uint32_t value) {
    __atomic_store_n(reinterpret_cast<std::uint32_t*>(segment + at), value, __ATOMIC_SEQ_CST);
  }
  void put64(std::size_t at, std::uint64_t value) {
    __atomic_store_n(reinterpret_cast<std::uint64_t*>(segment + at), value, __ATOMIC_SEQ_CST);
  }
  static std::uint32_t get32(const char* from, std::size_t at) {
    return __atomic_load_n(reinterpret_cast<const std::uint32_t*>(from + at), __ATOMIC_SEQ_CST);
  }
  static std::uint64_t get64(const char* from, std::size_t at) {
    return __atomic_load_n(reinterpret_cast<const std::uint64_t*>(from + at), __ATOMIC_SEQ_CST);
  }

  UniqueFd socket;
  UniqueFd memory;
  UniqueFd bell;  // rung by the other side
  UniqueFd their_bell;
  char* segment = nullptr;
  const char* theirs = nullptr;
  std::uint64_t head = 0;
  std::uint64_t tail = 0;

 private:
  std::size_t size_ = 0;
  std::size_t their_size_ = 0;
};

}  // namespace bulkhead
