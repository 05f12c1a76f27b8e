#include "protocol/sealed_memory.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <string>
#include <sys/mman.h>
#include <sys/stat.h>

namespace bulkhead {
namespace {

#ifndef F_SEAL_FUTURE_WRITE
constexpr int F_SEAL_FUTURE_WRITE = 0x0010;  // Linux 5.1; older headers lack it
#endif

constexpr int kSizeSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
constexpr std::size_t kBlockBytes = 512;  // the unit of st_blocks, whatever the file system's is

Error cannot(const std::string& doing, int code) {
  return {ErrorCode::kUnavailable, "cannot " + doing + ": " + std::strerror(code)};
}

}  // namespace

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

Mapping::~Mapping() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

Result<SealedMemory> make_sealed_memory(const char* name, std::size_t size, PeerAccess access) {
  const std::string what = "share " + std::to_string(size) + " bytes of memory";
  UniqueFd fd(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return cannot(what, errno);
  // Allocates: a page that is missing later would be a SIGBUS.
  if (const int code = ::posix_fallocate(fd.get(), 0, static_cast<off_t>(size)); code != 0)
    return cannot(what, code);
  void* data = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd.get(), 0);
  if (data == MAP_FAILED) return cannot(what, errno);
  Mapping writable(static_cast<std::byte*>(data), size);
  const int seals = kSizeSeals | (access == PeerAccess::kRead ? F_SEAL_FUTURE_WRITE : 0);
  if (::fcntl(fd.get(), F_ADD_SEALS, seals) != 0) return cannot("seal shared memory", errno);
  return SealedMemory{std::move(fd), std::move(writable)};
}

Result<SealedSize> check_sealed_memory(int fd) {
  const int seals = ::fcntl(fd, F_GET_SEALS);
  if (seals < 0) return Error{ErrorCode::kMalformed, "its memory is not a memfd"};
  if ((seals & kSizeSeals) != kSizeSeals)
    return Error{ErrorCode::kMalformed, "its memory is not sealed against shrinking and growing"};
  struct stat status {};
  if (::fstat(fd, &status) != 0) return cannot("look at shared memory", errno);
  const auto size = static_cast<std::size_t>(status.st_size);
  if (static_cast<std::size_t>(status.st_blocks) * kBlockBytes < size)
    return Error{ErrorCode::kMalformed, "its memory is not allocated"};
  return SealedSize{size, (seals & F_SEAL_FUTURE_WRITE) != 0 ? PeerAccess::kRead : PeerAccess::kWrite};
}

Result<Mapping> map_sealed_memory(int fd, std::size_t size, PeerAccess access) {
  const int protection = access == PeerAccess::kWrite ? PROT_READ | PROT_WRITE : PROT_READ;
  void* data = ::mmap(nullptr, size, protection, MAP_SHARED | MAP_POPULATE, fd, 0);
  if (data == MAP_FAILED) return cannot("map " + std::to_string(size) + " bytes of shared memory", errno);
  return Mapping(static_cast<std::byte*>(data), size);
}

}  // namespace bulkhead
