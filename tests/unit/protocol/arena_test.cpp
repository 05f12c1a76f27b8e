// Slots of shared memory: given out, taken back, recycled, refused.
#include "protocol/arena.h"

#include <cstring>
#include <fcntl.h>
#include <set>
#include <sys/mman.h>
#include <sys/stat.h>
#include <thread>

#include <gtest/gtest.h>

namespace bulkhead {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

Slot allocated(Arena& arena, std::size_t bytes) {
  Result<Slot> slot = arena.allocate(bytes);
  EXPECT_TRUE(slot.ok()) << slot.error().message;
  return slot.ok() ? std::move(*slot) : Slot{};
}

TEST(Arena, GivesAlignedMemoryThatIsNobodyElses) {
  Arena arena(64 * kMiB);
  std::vector<Slot> slots;
  for (const std::size_t bytes :
       {std::size_t{0}, std::size_t{1}, std::size_t{4096}, std::size_t{5000}, kMiB, 3 * kMiB}) {
    for (int i = 0; i < 3; ++i) slots.push_back(allocated(arena, bytes));
  }
  for (std::size_t i = 0; i < slots.size(); ++i) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(slots[i].data) % 64, 0u);
    std::memset(slots[i].data, static_cast<int>(i + 1), slots[i].size);
  }
  for (std::size_t i = 0; i < slots.size(); ++i) {
    for (std::size_t at = 0; at < slots[i].size; at += 97) {
      ASSERT_EQ(static_cast<std::size_t>(slots[i].data[at]), i + 1) << i << " at " << at;
    }
  }
}

TEST(Arena, GivesTheSameMemoryAgainOnceItIsFree) {
  Arena arena(64 * kMiB);
  const std::byte* first = nullptr;
  {
    const Slot slot = allocated(arena, 5 * kMiB);
    first = slot.data;
    const Slot other = allocated(arena, 5 * kMiB);
    EXPECT_NE(other.data, first);
  }
  const std::size_t reserved = arena.reserved_bytes();
  EXPECT_EQ(allocated(arena, 5 * kMiB - 100).data, first);
  EXPECT_EQ(arena.reserved_bytes(), reserved);
}

TEST(Arena, TakesSlotsBackFromAnotherThread) {
  Arena arena(8 * kMiB);
  std::set<const std::byte*> seen;
  for (int i = 0; i < 200; ++i) {
    Slot slot = allocated(arena, 2 * kMiB);
    seen.insert(slot.data);
    std::thread([owner = std::move(slot.owner)]() mutable { owner.reset(); }).join();
  }
  EXPECT_EQ(seen.size(), 1u);
}

TEST(Arena, SlotsOutliveIt) {
  Slot slot;
  {
    Arena arena(8 * kMiB);
    slot = allocated(arena, kMiB);
  }
  std::memset(slot.data, 7, slot.size);
  EXPECT_EQ(slot.data[slot.size - 1], std::byte{7});
  EXPECT_EQ(slot.blob().segment, slot.segment);
}

TEST(Arena, SaysHowFullItIs) {
  Arena arena(8 * kMiB);
  const Slot slot = allocated(arena, 6 * kMiB);
  const Result<Slot> refused = arena.allocate(3 * kMiB);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().message, "no room for 3 MiB of shared memory: of 8 MiB, 6 MiB are in use");
  EXPECT_FALSE(arena.allocate(SIZE_MAX).ok());
}

TEST(Arena, IdleMemoryOfOtherSizesMakesRoom) {
  Arena arena(8 * kMiB);
  for (std::size_t mib = 1; mib <= 8; ++mib) allocated(arena, mib * kMiB);
  EXPECT_LE(arena.reserved_bytes(), 8 * kMiB);
}

TEST(Segment, ReservesItsMemoryAndSealsIt) {
  Result<std::shared_ptr<Segment>> segment = Segment::create(kMiB);
  ASSERT_TRUE(segment.ok()) << segment.error().message;
  struct stat status {};
  ASSERT_EQ(::fstat((*segment)->fd(), &status), 0);
  EXPECT_GE(static_cast<std::size_t>(status.st_blocks) * 512, kMiB);
  EXPECT_NE(::ftruncate((*segment)->fd(), 0), 0);
  EXPECT_EQ(::mmap(nullptr, kMiB, PROT_READ | PROT_WRITE, MAP_SHARED, (*segment)->fd(), 0), MAP_FAILED);
}

TEST(Segment, IsRefusedWhereItsOwnerCouldShrinkIt) {
  UniqueFd fd(::memfd_create("test", MFD_ALLOW_SEALING | MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(fd.get(), 4096), 0);
  EXPECT_FALSE(Segment::adopt(std::move(fd)).ok());
}

}  // namespace
}  // namespace bulkhead
