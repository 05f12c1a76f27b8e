// Counts the bytes that a process moves, for `copies` of scripts/bench/dataplane:
// loaded into every process of a peer by LD_PRELOAD, it stands in for memcpy,
// memmove and the calls that read and write descriptors.  Totals lie in the file
// $BULKHEAD_BENCH_COPIES (counted_bytes() in measuring.h), which all share.
//
// Pieces under 1 KiB are not counted.  What a library copies by a loop of its
// own is not seen: the numbers are at least.  Nothing of ours is linked here.
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

namespace {

constexpr std::size_t kSmallest = 1024;  // bytes

struct Counters {
  std::atomic<std::uint64_t> in_memory;
  std::atomic<std::uint64_t> through_kernel;
};
std::atomic<Counters*> counters{nullptr};

__attribute__((constructor)) void open_counters() {
  const char* path = std::getenv("BULKHEAD_BENCH_COPIES");
  if (path == nullptr) return;
  const int fd = ::open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return;
  void* at = ::mmap(nullptr, sizeof(Counters), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  ::close(fd);
  if (at != MAP_FAILED) counters.store(static_cast<Counters*>(at));
}

// These are memcpy itself: compiled so that no loop becomes a call of it.
void* copied(void* to, const void* from, std::size_t size) {
  auto* out = static_cast<unsigned char*>(to);
  const auto* in = static_cast<const unsigned char*>(from);
  if (out <= in || out >= in + size) {
    for (std::size_t i = 0; i < size; ++i) out[i] = in[i];
  } else {
    for (std::size_t i = size; i > 0; --i) out[i - 1] = in[i - 1];
  }
  Counters* found = counters.load(std::memory_order_relaxed);
  if (size >= kSmallest && found != nullptr) found->in_memory.fetch_add(size, std::memory_order_relaxed);
  return to;
}

ssize_t moved(long size) {
  Counters* found = counters.load(std::memory_order_relaxed);
  if (size >= static_cast<long>(kSmallest) && found != nullptr)
    found->through_kernel.fetch_add(static_cast<std::uint64_t>(size), std::memory_order_relaxed);
  return size;
}

}  // namespace

extern "C" {

void* memcpy(void* to, const void* from, std::size_t size) noexcept { return copied(to, from, size); }
void* memmove(void* to, const void* from, std::size_t size) noexcept { return copied(to, from, size); }
void* __memcpy_chk(void* to, const void* from, std::size_t size, std::size_t) noexcept {
  return copied(to, from, size);
}
void* __memmove_chk(void* to, const void* from, std::size_t size, std::size_t) noexcept {
  return copied(to, from, size);
}

ssize_t read(int fd, void* to, std::size_t size) { return moved(::syscall(SYS_read, fd, to, size)); }
ssize_t write(int fd, const void* from, std::size_t size) {
  return moved(::syscall(SYS_write, fd, from, size));
}
ssize_t readv(int fd, const iovec* parts, int count) { return moved(::syscall(SYS_readv, fd, parts, count)); }
ssize_t writev(int fd, const iovec* parts, int count) {
  return moved(::syscall(SYS_writev, fd, parts, count));
}
ssize_t recv(int fd, void* to, std::size_t size, int flags) {
  return moved(::syscall(SYS_recvfrom, fd, to, size, flags, nullptr, nullptr));
}
ssize_t send(int fd, const void* from, std::size_t size, int flags) {
  return moved(::syscall(SYS_sendto, fd, from, size, flags, nullptr, 0));
}
ssize_t recvfrom(int fd, void* to, std::size_t size, int flags, sockaddr* from, socklen_t* length) {
  return moved(::syscall(SYS_recvfrom, fd, to, size, flags, from, length));
}
ssize_t sendto(int fd, const void* from, std::size_t size, int flags, const sockaddr* to, socklen_t length) {
  return moved(::syscall(SYS_sendto, fd, from, size, flags, to, length));
}
ssize_t recvmsg(int fd, msghdr* message, int flags) {
  return moved(::syscall(SYS_recvmsg, fd, message, flags));
}
ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  return moved(::syscall(SYS_sendmsg, fd, message, flags));
}

}  // extern "C"
