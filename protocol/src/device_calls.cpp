#include "protocol/device_calls.h"

#include <dlfcn.h>

namespace bulkhead {
namespace {

// Fills in one call; remembers the first that is missing.
template <class Function>
void find(void* library, const char* name, Function*& call, std::string& missing) {
  call = reinterpret_cast<Function*>(::dlsym(library, name));
  if (call == nullptr && missing.empty()) missing = name;
}

}  // namespace

Result<DeviceCalls> load_device_calls(const std::string& library) {
  void* driver = ::dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (driver == nullptr) {
    return Error{ErrorCode::kUnavailable, std::string("there is no CUDA driver here: ") + ::dlerror()};
  }
  DeviceCalls calls{};
  std::string missing;
  find(driver, "cuInit", calls.init, missing);
  find(driver, "cuDeviceGet", calls.device_get, missing);
  find(driver, "cuDeviceGetUuid_v2", calls.device_get_uuid, missing);
  find(driver, "cuDeviceTotalMem_v2", calls.device_total_mem, missing);
  find(driver, "cuDevicePrimaryCtxRetain", calls.primary_ctx_retain, missing);
  find(driver, "cuCtxSetCurrent", calls.ctx_set_current, missing);
  find(driver, "cuCtxSynchronize", calls.ctx_synchronize, missing);
  find(driver, "cuMemAlloc_v2", calls.mem_alloc, missing);
  find(driver, "cuMemFree_v2", calls.mem_free, missing);
  find(driver, "cuMemcpyAsync", calls.memcpy_async, missing);
  find(driver, "cuMemsetD8Async", calls.memset_async, missing);
  find(driver, "cuMemHostRegister_v2", calls.mem_host_register, missing);
  find(driver, "cuMemHostUnregister", calls.mem_host_unregister, missing);
  find(driver, "cuStreamCreate", calls.stream_create, missing);
  find(driver, "cuStreamSynchronize", calls.stream_synchronize, missing);
  find(driver, "cuStreamWaitEvent", calls.stream_wait_event, missing);
  find(driver, "cuEventCreate", calls.event_create, missing);
  find(driver, "cuEventDestroy_v2", calls.event_destroy, missing);
  find(driver, "cuEventRecord", calls.event_record, missing);
  find(driver, "cuEventQuery", calls.event_query, missing);
  find(driver, "cuIpcGetMemHandle", calls.ipc_get_mem_handle, missing);
  find(driver, "cuIpcOpenMemHandle_v2", calls.ipc_open_mem_handle, missing);
  find(driver, "cuIpcCloseMemHandle", calls.ipc_close_mem_handle, missing);
  find(driver, "cuIpcGetEventHandle", calls.ipc_get_event_handle, missing);
  find(driver, "cuIpcOpenEventHandle", calls.ipc_open_event_handle, missing);
  find(driver, "cuGetErrorString", calls.get_error_string, missing);
  if (missing.empty()) return calls;
  return Error{ErrorCode::kUnavailable, library + " has no " + missing + ": the CUDA driver is too old"};
}

std::string to_text(const IpcHandle& handle) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const char byte : handle.bytes) {
    text += kDigits[static_cast<unsigned char>(byte) >> 4];
    text += kDigits[static_cast<unsigned char>(byte) & 15];
  }
  return text;
}

Result<IpcHandle> ipc_handle_of(const std::string& text) {
  IpcHandle handle{};
  const auto digit = [](char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  };
  if (text.size() != 2 * sizeof handle.bytes)
    return Error{ErrorCode::kMalformed, "a handle of the GPU's is not 128 digits"};
  for (std::size_t i = 0; i < sizeof handle.bytes; ++i) {
    const int high = digit(text[2 * i]);
    const int low = digit(text[2 * i + 1]);
    if (high < 0 || low < 0) return Error{ErrorCode::kMalformed, "a handle of the GPU's is not hexadecimal"};
    handle.bytes[i] = static_cast<char>(high * 16 + low);
  }
  return handle;
}

}  // namespace bulkhead
