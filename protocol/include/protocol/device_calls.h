// The CUDA driver's calls that bulkhead makes itself, found in libcuda.so.1
// when somebody asks for them: nothing of ours is linked with CUDA, and a
// process that never asks never loads it.
//
// Names, arguments and results are the driver's without its "cu" and "_v2"
// (CUDA Driver API, "Memory Management", "Unified Addressing", "Stream",
// "Event"): 0 is success.  Memory, events and the primary context are torch's
// as well as ours.  A test puts another library in its place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "protocol/result.h"

namespace bulkhead {

using DeviceAddress = std::uint64_t;  // CUdeviceptr
using DeviceStream = void*;           // CUstream, cudaStream_t; null: the default stream
using DeviceEvent = void*;            // CUevent

// CUipcMemHandle, CUipcEventHandle.
struct IpcHandle {
  char bytes[64];
};
struct DeviceUuid {
  char bytes[16];
};

inline constexpr int kDeviceNotReady = 600;  // CUDA_ERROR_NOT_READY

inline constexpr unsigned kStreamNonBlocking = 1;        // it does not wait for the default stream
inline constexpr unsigned kEventWithoutTiming = 2;       // cheaper, and needed for the next
inline constexpr unsigned kEventInterprocess = 4;        // it can be opened by other processes
inline constexpr unsigned kIpcLazyEnablePeerAccess = 1;  // the only flag there is

struct DeviceCalls {
  int (*init)(unsigned flags);
  int (*device_get)(int* device, int ordinal);
  int (*device_get_uuid)(DeviceUuid* uuid, int device);
  int (*device_total_mem)(std::size_t* bytes, int device);
  int (*primary_ctx_retain)(void** context, int device);
  int (*ctx_set_current)(void* context);
  int (*ctx_synchronize)();
  int (*mem_alloc)(DeviceAddress* address, std::size_t bytes);
  int (*mem_free)(DeviceAddress address);
  int (*memcpy_async)(DeviceAddress to, DeviceAddress from, std::size_t bytes, DeviceStream stream);
  int (*memset_async)(DeviceAddress to, unsigned char value, std::size_t bytes, DeviceStream stream);
  int (*mem_host_register)(void* address, std::size_t bytes, unsigned flags);
  int (*mem_host_unregister)(void* address);
  int (*stream_create)(DeviceStream* stream, unsigned flags);
  int (*stream_synchronize)(DeviceStream stream);
  int (*stream_wait_event)(DeviceStream stream, DeviceEvent event, unsigned flags);
  int (*event_create)(DeviceEvent* event, unsigned flags);
  int (*event_destroy)(DeviceEvent event);
  int (*event_record)(DeviceEvent event, DeviceStream stream);
  int (*event_query)(DeviceEvent event);
  int (*ipc_get_mem_handle)(IpcHandle* handle, DeviceAddress address);
  int (*ipc_open_mem_handle)(DeviceAddress* address, IpcHandle handle, unsigned flags);
  int (*ipc_close_mem_handle)(DeviceAddress address);
  int (*ipc_get_event_handle)(IpcHandle* handle, DeviceEvent event);
  int (*ipc_open_event_handle)(DeviceEvent* event, IpcHandle handle);
  int (*get_error_string)(int error, const char** text);
};

// The calls of the driver, which is loaded at the first call and stays.
// kUnavailable where there is none or it lacks a call, in a sentence.  Any
// thread.
Result<DeviceCalls> load_device_calls(const std::string& library = "libcuda.so.1");

// 128 digits, and back; kMalformed for anything else.
std::string to_text(const IpcHandle& handle);
Result<IpcHandle> ipc_handle_of(const std::string& text);

}  // namespace bulkhead
