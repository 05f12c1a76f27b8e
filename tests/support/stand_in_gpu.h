// A GPU for tests on machines without one: cuda_stand_in.cpp in the place of
// the driver.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "protocol/device_memory.h"

namespace bulkhead {

inline const char* const kStandInLibrary = BULKHEAD_BUILD_DIR "/tests/libcuda_stand_in.so";

inline DeviceCalls stand_in_calls() {
  const auto calls = load_device_calls(kStandInLibrary);
  CHECK(calls.ok(), calls.error().message);
  return *calls;
}

// How many pieces of host memory are pinned.
extern "C" int stand_in_pinned();
// The next so many looks at events find that they have not come.
extern "C" void stand_in_delay(int looks);

struct StandInGpu {
  explicit StandInGpu(std::size_t most_bytes = std::size_t{256} << 20)
      : calls(stand_in_calls()), memory(*Device::open(calls, 0), most_bytes) {}

  // As another process sees it; closed by nobody.
  std::byte* open(const std::string& handle) const {
    DeviceAddress address = 0;
    CHECK(calls.ipc_open_mem_handle(&address, *ipc_handle_of(handle), kIpcLazyEnablePeerAccess) == 0);
    return reinterpret_cast<std::byte*>(address);
  }

  DeviceCalls calls;
  DeviceMemory memory;
};

}  // namespace bulkhead
