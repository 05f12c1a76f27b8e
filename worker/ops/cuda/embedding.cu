// Rows of a token table and of a position table, added; eight columns a thread.
#include "ops/cuda/launch.h"
#include "ops/cuda/vector.cuh"

namespace bulkhead::cuda {
namespace {

constexpr int kThreads = 128;

__global__ void forward(Embedding work) {
  const int eights = static_cast<int>(work.width / 8);
  const std::int64_t count = work.sequences * work.length * eights;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count;
       i += static_cast<std::int64_t>(gridDim.x) * kThreads) {
    const std::int64_t row = i / eights;
    const std::int64_t column = i % eights * 8;
    float sum[8];
    load8(work.token_table + work.tokens[row] * work.width + column, sum);
    if (work.position_table != nullptr) {
      float other[8];
      load8(work.position_table + row % work.length * work.width + column, other);
#pragma unroll
      for (int k = 0; k < 8; ++k) sum[k] += other[k];
    }
    store8(work.rows + row * work.width + column, sum);
  }
}

__device__ __forceinline__ void atomic_add8(float* to, const float* value) {
#if __CUDA_ARCH__ >= 900
  atomicAdd(reinterpret_cast<float4*>(to), *reinterpret_cast<const float4*>(value));
  atomicAdd(reinterpret_cast<float4*>(to + 4), *reinterpret_cast<const float4*>(value + 4));
#else
#pragma unroll
  for (int k = 0; k < 8; ++k) atomicAdd(to + k, value[k]);
#endif
}

// A thread has one position of all sequences.
__global__ void backward(EmbeddingGradient work) {
  const int eights = static_cast<int>(work.width / 8);
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= work.length * eights) return;
  const std::int64_t position = i / eights, column = i % eights * 8;
  float sum[8] = {};
#pragma unroll 4
  for (std::int64_t sequence = 0; sequence < work.sequences; ++sequence) {
    const std::int64_t row = sequence * work.length + position;
    float value[8];
    load8(work.rows + row * work.width + column, value);
    if (work.token_gradient != nullptr) {
      atomic_add8(work.token_gradient + work.tokens[row] * work.width + column, value);
    }
#pragma unroll
    for (int k = 0; k < 8; ++k) sum[k] += value[k];
  }
  if (work.position_gradient == nullptr) return;
  float* place = work.position_gradient + position * work.width + column;
  float before[8];
  load8(place, before);
#pragma unroll
  for (int k = 0; k < 8; ++k) sum[k] += before[k];
  store8(place, sum);
}

unsigned blocks_for(std::int64_t eights) { return static_cast<unsigned>((eights + kThreads - 1) / kThreads); }

}  // namespace

cudaError_t embedding(const Embedding& work, cudaStream_t stream) {
  forward<<<blocks_for(work.sequences * work.length * work.width / 8), kThreads, 0, stream>>>(work);
  return cudaGetLastError();
}

cudaError_t embedding_gradient(const EmbeddingGradient& work, cudaStream_t stream) {
  backward<<<blocks_for(work.length * work.width / 8), kThreads, 0, stream>>>(work);
  return cudaGetLastError();
}

}  // namespace bulkhead::cuda
