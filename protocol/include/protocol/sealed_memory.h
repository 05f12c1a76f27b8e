// Memory that one process writes and others only read: a memfd that nobody
// can shrink, grow or map for writing any more once its maker has mapped it,
// all of it allocated in advance.  Where its maker gives leave, others may map
// it for writing too.
//
// A reader checks all that before it maps, so that no peer can take pages away
// under it (SIGBUS).  What is in it is never to be trusted: its maker may
// change it at any moment.  Any thread.
#pragma once

#include <cstddef>
#include <utility>

#include "protocol/result.h"
#include "protocol/unique_fd.h"

namespace bulkhead {

// Unmaps itself.
class Mapping {
 public:
  Mapping() = default;
  Mapping(std::byte* data, std::size_t size) : data_(data), size_(size) {}
  Mapping(Mapping&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Mapping& operator=(Mapping&& other) noexcept;
  ~Mapping();

  std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

// What those may do to whom the memory is shown.
enum class PeerAccess { kRead, kWrite };

struct SealedMemory {
  UniqueFd fd;       // to pass on; the mapping lives without it
  Mapping writable;  // kRead: the only one there will ever be
};

// `size` bytes of zeros, a multiple of the page size.  `name` is what
// /proc/PID/maps shows.  kUnavailable when there is no memory.
Result<SealedMemory> make_sealed_memory(const char* name, std::size_t size,
                                        PeerAccess access = PeerAccess::kRead);

struct SealedSize {
  std::size_t bytes = 0;
  PeerAccess access = PeerAccess::kRead;
};

// What `fd` is; kMalformed, in a sentence that begins with "its", when it is
// not a memfd sealed and allocated as above.
Result<SealedSize> check_sealed_memory(int fd);

// REQUIRES: check_sealed_memory(fd) gave that size and access.
Result<Mapping> map_sealed_memory(int fd, std::size_t size, PeerAccess access = PeerAccess::kRead);

}  // namespace bulkhead
