// A stand-in for libcuda.so.1 on a machine without a GPU: the calls of
// protocol/device_calls.h over host memory.  Blocks are memfds, so that another
// process can open them through their handles, as by CUDA IPC; copies are done
// at once, so events have always come.  What it cannot show is in tests/gpu.
//
// BULKHEAD_STAND_IN_GPU in the environment is the first byte of the GPU's UUID.
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <map>
#include <string>
#include <sys/mman.h>
#include <unistd.h>

namespace {

struct Handle {
  std::array<char, 64> bytes;
};
struct Named {  // what a memory handle holds
  std::uint64_t magic;
  std::int64_t pid, fd;
  std::uint64_t bytes;
};

constexpr std::uint64_t kMagic = 0x6d656d6f7279;
constexpr int kInvalidValue = 1, kOutOfMemory = 2, kNoDevice = 101, kInvalidHandle = 400, kNotReady = 600;
constexpr std::size_t kTotal = std::size_t{1} << 30;

std::map<std::uint64_t, std::pair<std::size_t, int>> blocks;  // address → bytes, descriptor (−1: opened)
std::size_t allocated = 0;
int broken = 0;  // what every call that waits gives
int pinned = 0;
int not_ready = 0;  // how often an event has not come yet

int map_block(int fd, std::size_t bytes, int kept, std::uint64_t* address) {
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) return kOutOfMemory;
  *address = reinterpret_cast<std::uint64_t>(memory);
  blocks[*address] = {bytes, kept};
  return 0;
}

}  // namespace

// The driver's names.
// NOLINTBEGIN(readability-identifier-naming)
extern "C" {

// For tests alone.
void stand_in_break(int error) { broken = error; }
void stand_in_delay(int queries) { not_ready = queries; }
int stand_in_pinned() { return pinned; }
std::size_t stand_in_opened() {
  std::size_t opened = 0;
  for (const auto& [address, block] : blocks) opened += block.second < 0;
  return opened;
}

int cuInit(unsigned) { return 0; }
int cuDeviceGet(int* device, int ordinal) {
  *device = ordinal;
  return ordinal == 0 ? 0 : kNoDevice;
}
int cuDeviceGetUuid_v2(char* uuid, int) {
  const char* first = std::getenv("BULKHEAD_STAND_IN_GPU");
  std::memset(uuid, 0xab, 16);
  if (first != nullptr) *uuid = *first;
  return 0;
}
int cuDeviceTotalMem_v2(std::size_t* bytes, int) {
  *bytes = kTotal;
  return 0;
}
int cuDevicePrimaryCtxRetain(void** context, int) {
  *context = &blocks;
  return 0;
}
int cuCtxSetCurrent(void*) { return 0; }
int cuCtxSynchronize() { return broken; }

int cuMemAlloc_v2(std::uint64_t* address, std::size_t bytes) {
  if (bytes == 0) return kInvalidValue;
  if (bytes > kTotal - allocated) return kOutOfMemory;
  const int fd = ::memfd_create("stand-in", MFD_CLOEXEC);
  if (fd < 0 || ::ftruncate(fd, static_cast<off_t>(bytes)) != 0) return kOutOfMemory;
  allocated += bytes;
  return map_block(fd, bytes, fd, address);
}
int cuMemFree_v2(std::uint64_t address) {
  const auto found = blocks.find(address);
  if (found == blocks.end() || found->second.second < 0) return kInvalidValue;
  allocated -= found->second.first;
  ::munmap(reinterpret_cast<void*>(address), found->second.first);
  ::close(found->second.second);
  blocks.erase(found);
  return 0;
}
int cuMemcpyAsync(std::uint64_t to, std::uint64_t from, std::size_t bytes, void*) {
  std::memcpy(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes);
  return 0;
}
int cuMemsetD8Async(std::uint64_t to, unsigned char value, std::size_t bytes, void*) {
  std::memset(reinterpret_cast<void*>(to), value, bytes);
  return 0;
}
int cuMemHostRegister_v2(void*, std::size_t, unsigned) {
  ++pinned;
  return 0;
}
int cuMemHostUnregister(void*) {
  --pinned;
  return 0;
}

int cuStreamCreate(void** stream, unsigned) {
  *stream = &blocks;
  return 0;
}
int cuStreamSynchronize(void*) { return broken; }
int cuStreamWaitEvent(void*, void*, unsigned) { return 0; }
int cuEventCreate(void** event, unsigned) {
  *event = &blocks;
  return 0;
}
int cuEventDestroy_v2(void*) { return 0; }
int cuEventRecord(void*, void*) { return 0; }
int cuEventQuery(void*) { return not_ready-- > 0 ? kNotReady : broken; }

int cuIpcGetMemHandle(Handle* handle, std::uint64_t address) {
  const auto found = blocks.find(address);
  if (found == blocks.end()) return kInvalidValue;
  const Named named{kMagic, ::getpid(), found->second.second, found->second.first};
  std::memcpy(handle->bytes.data(), &named, sizeof named);
  return 0;
}
int cuIpcOpenMemHandle_v2(std::uint64_t* address, Handle handle, unsigned) {
  Named named{};
  std::memcpy(&named, handle.bytes.data(), sizeof named);
  const std::string path = "/proc/" + std::to_string(named.pid) + "/fd/" + std::to_string(named.fd);
  const int fd = named.magic == kMagic ? ::open(path.c_str(), O_RDWR | O_CLOEXEC) : -1;
  if (fd < 0) return kInvalidHandle;
  const int result = map_block(fd, named.bytes, -1, address);
  ::close(fd);
  return result;
}
int cuIpcCloseMemHandle(std::uint64_t address) {
  const auto found = blocks.find(address);
  if (found == blocks.end() || found->second.second >= 0) return kInvalidValue;
  ::munmap(reinterpret_cast<void*>(address), found->second.first);
  blocks.erase(found);
  return 0;
}
int cuIpcGetEventHandle(Handle* handle, void*) {
  handle->bytes.fill('e');
  return 0;
}
int cuIpcOpenEventHandle(void** event, Handle handle) {
  *event = &blocks;
  return handle.bytes[0] == 'e' ? 0 : kInvalidHandle;
}
int cuGetErrorString(int error, const char** text) {
  *text = error == kOutOfMemory     ? "out of memory"
          : error == kInvalidHandle ? "invalid handle"
                                    : "stand-in's error";
  return 0;
}
}
// NOLINTEND(readability-identifier-naming)
