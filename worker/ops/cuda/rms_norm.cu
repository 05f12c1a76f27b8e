// A block a row, the row in registers; in backward a thread keeps its columns, so
// that their sums over rows need nobody else.
#include "ops/cuda/llama.h"
#include "ops/cuda/vector.cuh"

namespace bulkhead::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kBackwardBlocks = 264;  // two on each of Hopper's multiprocessors

// Every thread gets the sum, made in the same order.
__device__ __forceinline__ float block_total(float value, float* warps) {
  value = warp_sum(value);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  float total = 0;
#pragma unroll
  for (int warp = 0; warp < kThreads / 32; ++warp) total += warps[warp];
  __syncthreads();
  return total;
}

// kVectors: eights of a row that one thread holds.
template <int kVectors, bool kBranch>
__global__ __launch_bounds__(kThreads) void forward(RmsNorm work) {
  __shared__ float warps[kThreads / 32];
  const int vectors = static_cast<int>(work.width / 8);
  const std::int64_t row = blockIdx.x, base = row * work.width;
  const auto* branch = static_cast<const bf16*>(work.branch);
  auto* normed = static_cast<bf16*>(work.normed);
  float value[kVectors][8];
  float squares = 0;
#pragma unroll
  for (int j = 0; j < kVectors; ++j) {
    const int at = static_cast<int>(threadIdx.x) + kThreads * j;
    if (at >= vectors) continue;
    load8(work.x + base + at * 8, value[j]);
    if (kBranch) {
      float other[8];
      load8(branch + base + at * 8, other);
#pragma unroll
      for (int k = 0; k < 8; ++k) value[j][k] += other[k];
      store8(work.sum + base + at * 8, value[j]);
    }
#pragma unroll
    for (int k = 0; k < 8; ++k) squares += value[j][k] * value[j][k];
  }
  const float rstd = rsqrtf(block_total(squares, warps) / static_cast<float>(work.width) + work.eps);
  if (threadIdx.x == 0) work.rstd[row] = rstd;
#pragma unroll
  for (int j = 0; j < kVectors; ++j) {
    const int at = static_cast<int>(threadIdx.x) + kThreads * j;
    if (at >= vectors) continue;
    float weight[8];
    load8(work.weight + at * 8, weight);
#pragma unroll
    for (int k = 0; k < 8; ++k) value[j][k] *= rstd * weight[k];
    store8(normed + base + at * 8, value[j]);
  }
}

// Rows go over the blocks in turns; each block leaves its sums for the weight in
// `partial` [blocks, width].
template <int kVectors>
__global__ __launch_bounds__(kThreads) void backward(RmsNormGradient work) {
  __shared__ float warps[kThreads / 32];
  const int vectors = static_cast<int>(work.width / 8);
  const auto* gradient = static_cast<const bf16*>(work.normed);
  auto* branch = static_cast<bf16*>(work.branch);
  float for_weight[kVectors][8] = {};
  for (std::int64_t row = blockIdx.x; row < work.rows; row += gridDim.x) {
    const std::int64_t base = row * work.width;
    const float rstd = work.rstd[row];
    float standard[kVectors][8], d[kVectors][8];
    float product = 0;
#pragma unroll
    for (int j = 0; j < kVectors; ++j) {
      const int at = static_cast<int>(threadIdx.x) + kThreads * j;
      if (at >= vectors) continue;
      float weight[8];
      load8(gradient + base + at * 8, d[j]);
      load8(work.saved_sum + base + at * 8, standard[j]);
      load8(work.weight + at * 8, weight);
#pragma unroll
      for (int k = 0; k < 8; ++k) {
        standard[j][k] *= rstd;
        for_weight[j][k] += d[j][k] * standard[j][k];
        d[j][k] *= weight[k];
        product += d[j][k] * standard[j][k];
      }
    }
    product = block_total(product, warps) / static_cast<float>(work.width);
#pragma unroll
    for (int j = 0; j < kVectors; ++j) {
      const int at = static_cast<int>(threadIdx.x) + kThreads * j;
      if (at >= vectors) continue;
      float result[8] = {};
      if (work.sum != nullptr) load8(work.sum + base + at * 8, result);
#pragma unroll
      for (int k = 0; k < 8; ++k) result[k] += rstd * (d[j][k] - standard[j][k] * product);
      store8(work.x + base + at * 8, result);
      if (branch != nullptr) store8(branch + base + at * 8, result);
    }
  }
#pragma unroll
  for (int j = 0; j < kVectors; ++j) {
    const int at = static_cast<int>(threadIdx.x) + kThreads * j;
    if (at < vectors) {
      store8(work.partial + static_cast<std::int64_t>(blockIdx.x) * work.width + at * 8, for_weight[j]);
    }
  }
}

template <int kVectors>
cudaError_t launch_forward(const RmsNorm& work, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(work.rows);
  if (work.branch != nullptr) {
    forward<kVectors, true><<<blocks, kThreads, 0, stream>>>(work);
  } else {
    forward<kVectors, false><<<blocks, kThreads, 0, stream>>>(work);
  }
  return cudaGetLastError();
}

template <int kVectors>
cudaError_t launch_backward(const RmsNormGradient& work, cudaStream_t stream) {
  backward<kVectors><<<kBackwardBlocks, kThreads, 0, stream>>>(work);
  return cudaGetLastError();
}

}  // namespace

// partial [parts, stride], of which `columns` are summed into `sums`.
cudaError_t add_partials(const float* partial, std::int64_t parts, std::int64_t stride, std::int64_t columns,
                         float* sums, cudaStream_t stream);

cudaError_t rms_norm(const RmsNorm& work, cudaStream_t stream) {
  constexpr std::int64_t kOnce = kThreads * 8;  // numbers that a block holds with one eight a thread
  if (work.width <= kOnce) return launch_forward<1>(work, stream);
  if (work.width <= 2 * kOnce) return launch_forward<2>(work, stream);
  return launch_forward<4>(work, stream);
}

std::int64_t rms_norm_partials(std::int64_t width) { return kBackwardBlocks * width; }

cudaError_t rms_norm_gradient(const RmsNormGradient& work, cudaStream_t stream) {
  constexpr std::int64_t kOnce = kThreads * 8;
  const cudaError_t launched = work.width <= kOnce       ? launch_backward<1>(work, stream)
                               : work.width <= 2 * kOnce ? launch_backward<2>(work, stream)
                                                         : launch_backward<4>(work, stream);
  if (launched != cudaSuccess) return launched;
  return add_partials(work.partial, kBackwardBlocks, work.width, work.width, work.weight_gradient, stream);
}

}  // namespace bulkhead::cuda
