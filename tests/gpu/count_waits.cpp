// For LD_PRELOAD: writes down, by name, what a process asks of the CUDA runtime
// that the host waits in, and its graph launches, one a line, in BULKHEAD_WAITS_LOG
// followed by a dot and the process' id.
//
// Torch's libraries call a runtime that they share, so each call passes here.  A
// copy to or from memory that is not pinned counts as a wait, and so do cudaMalloc
// and cudaFree, which wait for the device.
#include <cstdlib>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <string>
#include <unistd.h>

namespace {

void write_down(const char* name) {
  static const int file = [] {
    const char* path = std::getenv("BULKHEAD_WAITS_LOG");
    if (path == nullptr) return -1;
    const std::string own = std::string(path) + "." + std::to_string(::getpid());
    return ::open(own.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  }();
  if (file < 0) return;
  const std::string line = std::string(name) + "\n";
  if (::write(file, line.data(), line.size()) < 0) std::abort();
}

template <class Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

bool is_pageable(const void* address) {
  static auto* const attributes_of =
      next<cudaError_t(cudaPointerAttributes*, const void*)>("cudaPointerGetAttributes");
  cudaPointerAttributes attributes{};
  return attributes_of(&attributes, address) != cudaSuccess || attributes.type == cudaMemoryTypeUnregistered;
}

}  // namespace

#define NOTED(name, parameters, arguments)                         \
  extern "C" cudaError_t CUDARTAPI name parameters {               \
    static auto* const real = next<cudaError_t parameters>(#name); \
    write_down(#name);                                             \
    return real arguments;                                         \
  }

NOTED(cudaDeviceSynchronize, (), ())
NOTED(cudaStreamSynchronize, (cudaStream_t stream), (stream))
NOTED(cudaEventSynchronize, (cudaEvent_t event), (event))
NOTED(cudaMemcpy, (void* to, const void* from, size_t bytes, cudaMemcpyKind kind), (to, from, bytes, kind))
NOTED(cudaMalloc, (void** made, size_t bytes), (made, bytes))
NOTED(cudaFree, (void* memory), (memory))
NOTED(cudaHostAlloc, (void** made, size_t bytes, unsigned int flags), (made, bytes, flags))
NOTED(cudaFreeHost, (void* memory), (memory))
NOTED(cudaGraphLaunch, (cudaGraphExec_t graph, cudaStream_t stream), (graph, stream))

extern "C" cudaError_t CUDARTAPI cudaMemcpyAsync(void* to, const void* from, size_t bytes,
                                                 cudaMemcpyKind kind, cudaStream_t stream) {
  static auto* const real =
      next<cudaError_t(void*, const void*, size_t, cudaMemcpyKind, cudaStream_t)>("cudaMemcpyAsync");
  if (kind == cudaMemcpyDeviceToHost && is_pageable(to)) write_down("cudaMemcpyAsync to pageable memory");
  return real(to, from, bytes, kind, stream);
}
