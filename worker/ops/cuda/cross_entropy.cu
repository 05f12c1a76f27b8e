// A block has a row at a time: the softmax's sum and maximum in one pass (online
// softmax: Milakov and Gimelshein 2018), then the gradient in a second.  Between
// the two the row stays in shared memory where it fits; where two fit, the next
// row is on its way there meanwhile.
#include <cuda_pipeline_primitives.h>

#include "ops/cuda/launch.h"
#include "ops/cuda/vector.cuh"

namespace bulkhead::cuda {
namespace {

constexpr int kThreads = 768;            // of a block that has one row
constexpr int kStreamingThreads = 1024;  // of one that has two
constexpr float kLog2e = 1.4426950408889634f;
constexpr float kLowest = -1e30f;
constexpr std::size_t kMostShared = 220 * 1024;  // bytes that a block may have on Hopper

// 2ˣ, with what is below the smallest normal number as zero.
__device__ __forceinline__ float power_of_two(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0,%1;" : "=f"(result) : "f"(x));
  return result;
}

__device__ __forceinline__ float largest_of(uint4 bits) {
  const auto* pairs = reinterpret_cast<const __nv_bfloat162*>(&bits);
  const float2 largest =
      __bfloat1622float2(__hmax2(__hmax2(pairs[0], pairs[1]), __hmax2(pairs[2], pairs[3])));
  return fmaxf(largest.x, largest.y);
}

// Of the scores so far: the largest, and Σ e^(score − largest).
struct Softmax {
  float maximum = kLowest, sum = 0;

  __device__ __forceinline__ void add(uint4 bits) {
    const float largest = largest_of(bits);
    if (largest > maximum) {
      sum *= power_of_two((maximum - largest) * kLog2e);
      maximum = largest;
    }
    float score[8];
    load8(reinterpret_cast<const bf16*>(&bits), score);
    const float offset = -maximum * kLog2e;
#pragma unroll
    for (int k = 0; k < 8; ++k) sum += power_of_two(fmaf(score[k], kLog2e, offset));
  }

  __device__ __forceinline__ void merge(const Softmax& other) {
    const float larger = fmaxf(maximum, other.maximum);
    sum = sum * power_of_two((maximum - larger) * kLog2e) +
          other.sum * power_of_two((other.maximum - larger) * kLog2e);
    maximum = larger;
  }

  __device__ __forceinline__ void merge_warp() {
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) {
      merge({__shfl_xor_sync(~0u, maximum, offset), __shfl_xor_sync(~0u, sum, offset)});
    }
  }

  // Of all threads' scores; a barrier.  `warps` is scratch of one for each.
  __device__ __forceinline__ void merge_block(float2* warps) {
    merge_warp();
    const int lane = threadIdx.x % 32;
    if (lane == 0) warps[threadIdx.x / 32] = {maximum, sum};
    __syncthreads();
    const float2 other = lane < blockDim.x / 32 ? warps[lane] : float2{kLowest, 0};
    maximum = other.x;
    sum = other.y;
    merge_warp();
  }
};

// What lies past the last class counts for nothing.
__device__ __forceinline__ uint4 without_padding(uint4 bits, int vector, int classes) {
  const bf16 lowest = __float2bfloat16(kLowest);
  auto* scores = reinterpret_cast<bf16*>(&bits);
#pragma unroll
  for (int k = 0; k < 8; ++k) scores[k] = vector * 8 + k < classes ? scores[k] : lowest;
  return bits;
}

// scale · (softmax − one-hot) of eight scores; offset: log₂ of scale / sum / e^largest.
__device__ __forceinline__ uint4 gradient_of(uint4 bits, int vector, int label, float offset, float scale) {
  float value[8];
  load8(reinterpret_cast<const bf16*>(&bits), value);
#pragma unroll
  for (int k = 0; k < 8; ++k) value[k] = power_of_two(fmaf(value[k], kLog2e, offset));
  if (vector == label / 8) {
#pragma unroll
    for (int k = 0; k < 8; ++k) value[k] -= vector * 8 + k == label ? scale : 0.f;
  }
  store8(reinterpret_cast<bf16*>(&bits), value);
  return bits;
}

// The second pass over a row, whose eights `at(vector)` gives: every thread those
// that it had in the first.  A barrier.
template <class At>
__device__ __forceinline__ void finish(const CrossEntropy& work, std::int64_t row, int label,
                                       float label_score, const Softmax& all, const At& at) {
  const bool counts = label >= 0;
  bool beaten = !counts || label_score != all.maximum;
  if (!beaten) {  // unless an earlier class has as large a score
    for (int i = threadIdx.x; i * 8 < label; i += blockDim.x) {
      const uint4 bits = at(i);
      float score[8];
      load8(reinterpret_cast<const bf16*>(&bits), score);
#pragma unroll
      for (int k = 0; k < 8; ++k) beaten |= i * 8 + k < label && score[k] == all.maximum;
    }
  }
  const bool wrong = __syncthreads_or(beaten);
  if (threadIdx.x == 0) {
    work.losses[row] = counts ? all.maximum + logf(all.sum) - label_score : 0.f;
    work.correct[row] = wrong ? 0 : 1;
  }
  if (!work.with_gradient) return;
  // 2^−∞ where the row does not count, whose label is then in no vector.
  const float offset = counts ? log2f(work.scale / all.sum) - all.maximum * kLog2e : -INFINITY;
  const int place = counts ? label : -8;
  auto* eights = reinterpret_cast<uint4*>(static_cast<bf16*>(work.scores) + row * work.stride);
  const int vectors = static_cast<int>(work.stride / 8);
#pragma unroll 4
  for (int i = threadIdx.x; i < vectors; i += blockDim.x) {
    __stcs(eights + i, gradient_of(at(i), i, place, offset, work.scale));
  }
}

// ----- A row a block -----

template <bool kInShared>
__global__ __launch_bounds__(kThreads, 2) void rows(CrossEntropy work) {
  extern __shared__ uint4 kept[];
  __shared__ float2 warps[kThreads / 32];
  const auto* scores = static_cast<const bf16*>(work.scores) + blockIdx.x * work.stride;
  const auto* eights = reinterpret_cast<const uint4*>(scores);
  const int vectors = static_cast<int>(work.stride / 8), classes = static_cast<int>(work.classes);
  const auto label = static_cast<int>(work.labels[blockIdx.x]);
  const float label_score = __bfloat162float(scores[label >= 0 ? label : 0]);
  Softmax all;
#pragma unroll 4
  for (int i = threadIdx.x; i < vectors; i += kThreads) {
    uint4 bits = __ldcs(eights + i);
    if (i * 8 + 8 > classes) bits = without_padding(bits, i, classes);
    if (kInShared) kept[i] = bits;
    all.add(bits);
  }
  all.merge_block(warps);
  finish(work, blockIdx.x, label, label_score, all, [&](int i) {
    if (kInShared) return kept[i];
    return i * 8 + 8 > classes ? without_padding(eights[i], i, classes) : eights[i];
  });
}

// ----- Rows by turns, the next one on its way -----

// A thread reads what it has fetched itself, but for the label's score.
__global__ __launch_bounds__(kStreamingThreads, 1) void streamed(CrossEntropy work) {
  extern __shared__ uint4 kept[];
  __shared__ float2 warps[kStreamingThreads / 32];
  const int vectors = static_cast<int>(work.stride / 8), classes = static_cast<int>(work.classes);
  const auto fetch = [&](std::int64_t row, uint4* to) {
    const auto* eights =
        reinterpret_cast<const uint4*>(static_cast<const bf16*>(work.scores) + row * work.stride);
    for (int i = threadIdx.x; i < vectors; i += kStreamingThreads) {
      __pipeline_memcpy_async(to + i, eights + i, sizeof(uint4));
    }
    __pipeline_commit();
  };
  uint4* here = kept;
  uint4* next = kept + vectors;
  std::int64_t row = blockIdx.x;
  if (row >= work.rows) return;
  fetch(row, here);
  for (; row < work.rows; row += gridDim.x) {
    const auto label = static_cast<int>(work.labels[row]);
    if (row + gridDim.x < work.rows) {
      fetch(row + gridDim.x, next);
      __pipeline_wait_prior(1);
    } else {
      __pipeline_wait_prior(0);
    }
    Softmax all;
#pragma unroll 4
    for (int i = threadIdx.x; i < vectors; i += kStreamingThreads) {
      if (i * 8 + 8 > classes) here[i] = without_padding(here[i], i, classes);
      all.add(here[i]);
    }
    all.merge_block(warps);
    const float label_score = __bfloat162float(reinterpret_cast<const bf16*>(here)[label >= 0 ? label : 0]);
    finish(work, row, label, label_score, all, [here](int i) { return here[i]; });
    uint4* const done = here;
    here = next;
    next = done;
  }
}

cudaError_t launch_streamed(const CrossEntropy& work, std::size_t bytes, cudaStream_t stream) {
  int device = 0, processors = 0;
  if (const auto got = cudaGetDevice(&device); got != cudaSuccess) return got;
  if (const auto got = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
      got != cudaSuccess) {
    return got;
  }
  streamed<<<static_cast<unsigned>(processors), kStreamingThreads, bytes, stream>>>(work);
  return cudaGetLastError();
}

// Whether a kernel may have so much shared memory on this GPU.
template <class Kernel>
bool allow(Kernel* kernel, std::size_t bytes) {
  if (bytes > kMostShared) return false;
  const auto set =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (set != cudaSuccess) (void)cudaGetLastError();
  return set == cudaSuccess;
}

}  // namespace

cudaError_t cross_entropy(const CrossEntropy& work, cudaStream_t stream) {
  const auto bytes = static_cast<std::size_t>(work.stride) * sizeof(bf16);
  const auto blocks = static_cast<unsigned>(work.rows);
  if (allow(streamed, 2 * bytes)) return launch_streamed(work, 2 * bytes, stream);
  if (allow(rows<true>, bytes)) {
    rows<true><<<blocks, kThreads, bytes, stream>>>(work);
  } else {
    rows<false><<<blocks, kThreads, 0, stream>>>(work);
  }
  return cudaGetLastError();
}

}  // namespace bulkhead::cuda
