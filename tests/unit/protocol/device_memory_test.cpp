// Memory of a GPU, lent and kept, over a stand-in for the driver
// (support/cuda_stand_in.cpp); tests/gpu has the real one.
#include "protocol/device_memory.h"

#include <cstring>

#include <gtest/gtest.h>

#include "support/stand_in_gpu.h"

namespace bulkhead {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

Blob filled(std::size_t bytes, int value) {
  return Blob::of(std::vector<std::byte>(bytes, static_cast<std::byte>(value)));
}

TEST(DeviceCalls, ADriverThatIsNotThereOrTooOldIsASentence) {
  const auto missing = load_device_calls("libnone.so.1");
  ASSERT_FALSE(missing.ok());
  EXPECT_NE(missing.error().message.find("there is no CUDA driver here: libnone.so.1"), std::string::npos);
  const auto other = load_device_calls("libc.so.6");
  ASSERT_FALSE(other.ok());
  EXPECT_EQ(other.error().message, "libc.so.6 has no cuInit: the CUDA driver is too old");
}

TEST(DeviceCalls, AHandleIsItsDigitsAndBack) {
  IpcHandle handle{};
  for (int i = 0; i < 64; ++i) handle.bytes[i] = static_cast<char>(3 * i);
  const Result<IpcHandle> back = ipc_handle_of(to_text(handle));
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(std::memcmp(&handle, &*back, sizeof handle), 0);
  for (const std::string& wrong :
       {std::string(), std::string(126, '0'), std::string(130, '0'), std::string(128, 'G')})
    EXPECT_FALSE(ipc_handle_of(wrong).ok()) << wrong;
}

TEST(Device, OneThatIsNotThereIsASentence) {
  const auto device = Device::open(stand_in_calls(), 7);
  ASSERT_FALSE(device.ok());
  EXPECT_EQ(device.error().message, "cannot find the GPU 7: stand-in's error (101)");
}

TEST(Device, AnEventIsWaitedForButNotForEver) {
  StandInGpu gpu;
  DeviceEvent event = nullptr;
  ASSERT_EQ(gpu.calls.event_create(&event, kEventWithoutTiming), 0);
  stand_in_delay(50);
  EXPECT_TRUE(gpu.memory.device().wait(event, std::chrono::seconds(100)).ok());
  stand_in_delay(1 << 30);
  const Status waited = gpu.memory.device().wait(event, std::chrono::milliseconds(5));
  stand_in_delay(0);
  ASSERT_FALSE(waited.ok());
  EXPECT_EQ(waited.error().message, "a copy on the GPU has not come");
}

TEST(DeviceMemory, ABlockIsOpenedThroughItsHandleAndHoldsWhatWasFilledIn) {
  StandInGpu gpu;
  auto block = gpu.memory.take_shared(3 * kMiB);
  ASSERT_TRUE(block.ok());
  ASSERT_TRUE(gpu.memory.fill(**block, 4096, filled(1000, 7)).ok());
  ASSERT_TRUE((*block)->finish().ok());
  const std::byte* there = gpu.open((*block)->memory_handle());
  EXPECT_EQ(there[4096], std::byte{7});
  EXPECT_EQ(there[5095], std::byte{7});
  EXPECT_EQ(there[5096], std::byte{0});
  EXPECT_LT((*block)->number(), 0);  // no segment of host memory has such a number
}

TEST(DeviceMemory, WhatIsKeptStaysWhateverIsWrittenToTheBlock) {
  StandInGpu gpu;
  auto block = gpu.memory.take_shared(kMiB);
  ASSERT_TRUE(gpu.memory.fill(**block, 0, filled(1024, 1)).ok());
  Result<Blob> kept = gpu.memory.keep(**block, 256, 512);
  ASSERT_TRUE(kept.ok());
  std::memset(gpu.open((*block)->memory_handle()), 9, 1024);
  const Batch here = in_host_memory({{"x", DType::kUInt8, {512}, *kept}});
  EXPECT_EQ(here[0].bytes.device, nullptr);
  EXPECT_EQ(here[0].bytes.text(), std::string(512, '\1'));
}

TEST(DeviceMemory, OwnBlocksAreUsedAgainOnceTheirLastBlobHasGone) {
  StandInGpu gpu;
  auto block = gpu.memory.take_shared(kMiB);
  Result<Blob> first = gpu.memory.keep(**block, 0, 1000);
  Result<Blob> second = gpu.memory.keep(**block, 0, 1000);
  EXPECT_NE(first->data, second->data);
  const std::byte* where = first->data;
  *first = {};
  Result<Blob> third = gpu.memory.keep(**block, 0, 1000);
  EXPECT_EQ(third->data, where);
}

TEST(DeviceMemory, ABlobOutlivesTheMemoryItIsFrom) {
  Blob kept;
  {
    StandInGpu gpu;
    auto block = gpu.memory.take_shared(kMiB);
    ASSERT_TRUE(gpu.memory.fill(**block, 0, filled(64, 3)).ok());
    kept = *gpu.memory.keep(**block, 0, 64);
  }
  EXPECT_EQ(in_host_memory({{"x", DType::kUInt8, {64}, kept}})[0].bytes.text(), std::string(64, '\3'));
}

TEST(DeviceMemory, AFullGpuIsASentenceAndNoMoreIsTaken) {
  StandInGpu gpu(8 * kMiB);
  auto block = gpu.memory.take_shared(6 * kMiB);
  ASSERT_TRUE(block.ok());
  const auto more = gpu.memory.take_shared(4 * kMiB);
  ASSERT_FALSE(more.ok());
  EXPECT_EQ(more.error().message, "no room for 4 MiB of the GPU's memory: of 8 MiB, 6 are in use");
  gpu.memory.put_back(std::move(*block));
  EXPECT_TRUE(gpu.memory.take_shared(6 * kMiB).ok());
}

TEST(DeviceMemory, ASegmentIsPinnedOnceAndLetGoWithItsLastUser) {
  StandInGpu gpu;
  auto block = gpu.memory.take_shared(8 * kMiB);
  const int before = stand_in_pinned();
  {
    Arena arena(64 * kMiB);
    const Blob bytes = arena.allocate(4 * kMiB)->blob();
    ASSERT_TRUE(gpu.memory.fill(**block, 0, bytes).ok());
    ASSERT_TRUE(gpu.memory.fill(**block, 0, bytes).ok());
    EXPECT_EQ(stand_in_pinned(), before + 1);
  }
  Arena other(64 * kMiB);
  ASSERT_TRUE(gpu.memory.fill(**block, 0, other.allocate(4 * kMiB)->blob()).ok());
  EXPECT_EQ(stand_in_pinned(), before + 1);
}

}  // namespace
}  // namespace bulkhead
