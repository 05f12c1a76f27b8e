#include "protocol/sealed_memory.h"

#include <csignal>
#include <fcntl.h>
#include <string>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>
#include <utility>

#include <gtest/gtest.h>

namespace bulkhead {
namespace {

constexpr std::size_t kSize = 16384;
constexpr int kFutureWrite = 0x0010;  // F_SEAL_FUTURE_WRITE

// What check_sealed_memory() says of it.
std::string complaint(int fd) {
  const auto size = check_sealed_memory(fd);
  if (size) return {};
  EXPECT_EQ(size.error().code, ErrorCode::kMalformed);
  return size.error().message;
}

TEST(SealedMemory, IsSeenByAReaderAsItsMakerWritesIt) {
  const auto made = make_sealed_memory("test", kSize);
  ASSERT_TRUE(made.ok()) << made.error().message;
  const auto size = check_sealed_memory(made->fd.get());
  ASSERT_TRUE(size.ok()) << size.error().message;
  EXPECT_EQ(size->bytes, kSize);
  EXPECT_EQ(size->access, PeerAccess::kRead);
  const auto seen = map_sealed_memory(made->fd.get(), size->bytes);
  ASSERT_TRUE(seen.ok());
  EXPECT_EQ(seen->data()[kSize - 1], std::byte{0});
  made->writable.data()[kSize - 1] = std::byte{42};
  EXPECT_EQ(seen->data()[kSize - 1], std::byte{42});
}

TEST(SealedMemory, CanNeitherBeWrittenNorResizedNorEmptiedByAReader) {
  const auto made = make_sealed_memory("test", kSize);
  ASSERT_TRUE(made.ok());
  const int fd = made->fd.get();
  EXPECT_EQ(::mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
  EXPECT_EQ(::pwrite(fd, "x", 1, 0), -1);
  EXPECT_EQ(::ftruncate(fd, 0), -1);
  EXPECT_EQ(::ftruncate(fd, 2 * kSize), -1);
  EXPECT_EQ(::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, kSize), -1);
  EXPECT_EQ(::madvise(made->writable.data(), kSize, MADV_REMOVE), -1);
  void* view = ::mmap(nullptr, kSize, PROT_READ, MAP_SHARED, fd, 0);
  ASSERT_NE(view, MAP_FAILED);
  EXPECT_NE(::mprotect(view, kSize, PROT_READ | PROT_WRITE), 0);
  ::munmap(view, kSize);
}

TEST(SealedMemory, IsWrittenByAReaderWhereItsMakerGivesLeave) {
  const auto made = make_sealed_memory("test", kSize, PeerAccess::kWrite);
  ASSERT_TRUE(made.ok()) << made.error().message;
  const int fd = made->fd.get();
  const auto size = check_sealed_memory(fd);
  ASSERT_TRUE(size.ok()) << size.error().message;
  EXPECT_EQ(size->access, PeerAccess::kWrite);
  const auto peers = map_sealed_memory(fd, size->bytes, PeerAccess::kWrite);
  ASSERT_TRUE(peers.ok());
  peers->data()[kSize - 1] = std::byte{42};
  EXPECT_EQ(made->writable.data()[kSize - 1], std::byte{42});
  EXPECT_EQ(::ftruncate(fd, 0), -1);
  EXPECT_EQ(::ftruncate(fd, 2 * kSize), -1);
}

TEST(SealedMemory, IsRefusedWhereASealIsMissing) {
  const int all[] = {F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_SEAL};
  for (const int missing : all) {
    const UniqueFd fd(::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    ASSERT_EQ(::posix_fallocate(fd.get(), 0, kSize), 0);
    for (const int seal : all) {
      if (seal == missing) continue;
      ASSERT_EQ(::fcntl(fd.get(), F_ADD_SEALS, seal), 0);
    }
    EXPECT_EQ(complaint(fd.get()), "its memory is not sealed against shrinking and growing");
  }
}

TEST(SealedMemory, IsRefusedWhereItIsNotAllocatedOrNoMemory) {
  const UniqueFd sparse(::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(::ftruncate(sparse.get(), kSize), 0);
  ASSERT_EQ(::fcntl(sparse.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | kFutureWrite | F_SEAL_SEAL), 0);
  EXPECT_EQ(complaint(sparse.get()), "its memory is not allocated");
  const UniqueFd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(complaint(file.get()), "its memory is not a memfd");
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  EXPECT_EQ(complaint(ends[0]), "its memory is not a memfd");
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST(SealedMemory, SaysThatThereIsNone) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit small{kSize - 1, before.rlim_max};
  ::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const auto made = make_sealed_memory("test", kSize);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  ::signal(SIGXFSZ, SIG_DFL);
  ASSERT_FALSE(made.ok());
  EXPECT_EQ(made.error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(made.error().message, "cannot share 16384 bytes of memory: File too large");
}

TEST(SealedMemory, LivesInItsMappingWithoutItsDescriptor) {
  auto made = make_sealed_memory("test", kSize);
  ASSERT_TRUE(made.ok());
  auto seen = map_sealed_memory(made->fd.get(), kSize);
  ASSERT_TRUE(seen.ok());
  made->fd.reset();
  Mapping moved;
  moved = std::move(made->writable);
  moved.data()[7] = std::byte{7};
  moved = Mapping();
  EXPECT_EQ(seen->data()[7], std::byte{7});
}

}  // namespace
}  // namespace bulkhead
