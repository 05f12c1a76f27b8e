// Adds one to every element of "x" or "features" where it lies on the GPU: a
// native plugin with `device: cuda`.  Waits for nothing; the host does.
#include <cstdint>
#include <cuda_runtime.h>
#include <stdexcept>
#include <string>

#include "bulkhead/plugin.h"

namespace {

__global__ void add(float* x, std::int64_t count, float what) {
  const std::int64_t step = std::int64_t{blockDim.x} * gridDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step)
    x[i] += what;
}

struct AddOne : bulkhead::Plugin {
  static constexpr bool stateless = true;

  explicit AddOne(const bulkhead::Options& with) : crash_at_(with.get<std::int64_t>("crash_at", -1)) {}

  void transform_train_batch(bulkhead::Batch& batch, bulkhead::Context& ctx) override {
    const auto x = batch.mutable_view<float>(batch.has("x") ? "x" : "features");
    if (x.device() < 0) throw std::invalid_argument("this plugin needs device: cuda");
    cudaSetDevice(x.device());
    float* data = ctx.global_step == crash_at_ ? reinterpret_cast<float*>(std::uintptr_t{1} << 44) : x.data();
    add<<<1024, 256>>>(data, x.size(), 1);
    if (cudaGetLastError() != cudaSuccess) throw std::runtime_error("the kernel was not launched");
  }

  std::int64_t crash_at_;
};

}  // namespace

BULKHEAD_PLUGIN(AddOne)
