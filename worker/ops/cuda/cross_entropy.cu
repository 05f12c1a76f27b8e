// One block a row: the softmax's sum and maximum in one pass that keeps the row
// in shared memory, then the gradient from there (online softmax: Milakov and
// Gimelshein 2018).
#include "ops/cuda/launch.h"
#include "ops/cuda/vector.cuh"

namespace bulkhead::cuda {
namespace {

constexpr int kThreads = 768;
constexpr int kWarps = kThreads / 32;
constexpr float kLog2e = 1.4426950408889634f;
constexpr float kLowest = -1e30f;
constexpr std::size_t kLargestRow = 220 * 1024;  // bytes of shared memory that a block may have on Hopper

__device__ __forceinline__ void merge(float& maximum, float& sum, float other_maximum, float other_sum) {
  const float larger = fmaxf(maximum, other_maximum);
  sum = sum * exp2f((maximum - larger) * kLog2e) + other_sum * exp2f((other_maximum - larger) * kLog2e);
  maximum = larger;
}

template <bool kInShared>
__global__ __launch_bounds__(kThreads, 2) void rows(CrossEntropy work) {
  extern __shared__ uint4 kept[];
  __shared__ float maxima[kWarps], sums[kWarps];
  auto* row = static_cast<bf16*>(work.scores) + blockIdx.x * work.stride;
  const int vectors = static_cast<int>(work.stride / 8);
  const int classes = static_cast<int>(work.classes);
  const auto label = static_cast<int>(work.labels[blockIdx.x]);
  const bool counts = label >= 0;
  const float label_score = __bfloat162float(row[counts ? label : 0]);
  float maximum = kLowest, sum = 0;
#pragma unroll 4
  for (int i = threadIdx.x; i < vectors; i += kThreads) {
    const uint4 bits = __ldcs(reinterpret_cast<const uint4*>(row) + i);
    if (kInShared) kept[i] = bits;
    float score[8];
    load8(reinterpret_cast<const bf16*>(&bits), score);
    if (i * 8 + 8 > classes) {
#pragma unroll
      for (int k = 0; k < 8; ++k) score[k] = i * 8 + k < classes ? score[k] : kLowest;
    }
    float largest = score[0];
#pragma unroll
    for (int k = 1; k < 8; ++k) largest = fmaxf(largest, score[k]);
    if (largest > maximum) {
      sum *= exp2f((maximum - largest) * kLog2e);
      maximum = largest;
    }
#pragma unroll
    for (int k = 0; k < 8; ++k) sum += exp2f((score[k] - maximum) * kLog2e);
  }
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) {
    const float other_maximum = __shfl_xor_sync(~0u, maximum, offset);
    const float other_sum = __shfl_xor_sync(~0u, sum, offset);
    merge(maximum, sum, other_maximum, other_sum);
  }
  if (threadIdx.x % 32 == 0) {
    maxima[threadIdx.x / 32] = maximum;
    sums[threadIdx.x / 32] = sum;
  }
  __syncthreads();
  maximum = maxima[0];
#pragma unroll
  for (int i = 1; i < kWarps; ++i) maximum = fmaxf(maximum, maxima[i]);
  sum = 0;
#pragma unroll
  for (int i = 0; i < kWarps; ++i) sum += sums[i] * exp2f((maxima[i] - maximum) * kLog2e);

  const float factor = counts ? work.scale / sum : 0.f;
  bool beaten = !counts || label_score != maximum;  // an earlier class has as large a score
#pragma unroll 4
  for (int i = threadIdx.x; i < vectors; i += kThreads) {
    uint4 bits = kInShared ? kept[i] : reinterpret_cast<const uint4*>(row)[i];
    float value[8];
    load8(reinterpret_cast<const bf16*>(&bits), value);
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      const int at = i * 8 + k;
      beaten |= at < label && value[k] == maximum;
      value[k] = at < classes ? exp2f((value[k] - maximum) * kLog2e) * factor : 0.f;
      if (at == label) value[k] -= work.scale;
    }
    if (work.with_gradient) {
      store8(reinterpret_cast<bf16*>(&bits), value);
      __stcs(reinterpret_cast<uint4*>(row) + i, bits);
    }
  }
  const bool wrong = __syncthreads_or(beaten);
  if (threadIdx.x == 0) {
    work.losses[blockIdx.x] = counts ? maximum + logf(sum) - label_score : 0.f;
    work.correct[blockIdx.x] = wrong ? 0 : 1;
  }
}

}  // namespace

cudaError_t cross_entropy(const CrossEntropy& work, cudaStream_t stream) {
  const auto bytes = static_cast<std::size_t>(work.stride) * sizeof(bf16);
  const auto blocks = static_cast<unsigned>(work.rows);
  if (bytes > kLargestRow) {
    rows<false><<<blocks, kThreads, 0, stream>>>(work);
    return cudaGetLastError();
  }
  const auto allowed = static_cast<int>(bytes);
  if (const auto set = cudaFuncSetAttribute(rows<true>, cudaFuncAttributeMaxDynamicSharedMemorySize, allowed);
      set != cudaSuccess) {
    (void)cudaGetLastError();  // a smaller GPU: read the row twice
    rows<false><<<blocks, kThreads, 0, stream>>>(work);
    return cudaGetLastError();
  }
  rows<true><<<blocks, kThreads, bytes, stream>>>(work);
  return cudaGetLastError();
}

}  // namespace bulkhead::cuda
