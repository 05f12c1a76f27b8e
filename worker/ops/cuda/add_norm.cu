// A warp a row, the row in registers.
#include <cuda_pipeline_primitives.h>

#include "ops/cuda/launch.h"
#include "ops/cuda/vector.cuh"

namespace bulkhead::cuda {
namespace {

constexpr float kEpsilon = 1e-5f;
constexpr int kForwardThreads = 256;
constexpr std::int64_t kRowBytes = 10;  // of the backward pass' inputs, a column: bfloat16 and two floats

// A lane's part of the row and its sums are in registers: the longer the row and
// the more the sums, the fewer threads.  As many blocks as Hopper's
// multiprocessors hold at once.  Short rows are fetched one ahead into shared
// memory, where a lane reads what it has fetched itself.
template <int kVectors, bool kBranchBias>
struct Layout {
  static constexpr int kThreads = kBranchBias || kVectors > 2 ? 128 : 256;
  static constexpr int kBlocksAProcessor = kThreads == 128 && kVectors <= 3 ? 3 : 2;
  static constexpr int kBlocks = 132 * kBlocksAProcessor;
  static constexpr int kSums = kBranchBias ? 3 : 2;
  static constexpr int kAhead = kVectors <= 4 ? 2 : 0;  // rows that a warp has room for
};
constexpr std::int64_t kMostPartials = 132 * 3 * 3;

// A lane's eights of one row of the three inputs: in shared memory, or where they are.
struct RowInputs {
  const bf16* normed;
  const float* saved_sum;
  const float* sum;  // or null
};

// kVectors: eights of a row that one lane holds.
template <int kVectors, bool kBranch>
__global__ void forward(AddNorm work) {
  const auto row = static_cast<std::int64_t>(blockIdx.x) * (kForwardThreads / 32) + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (row >= work.rows) return;
  const int vectors = static_cast<int>(work.width / 8);
  const std::int64_t base = row * work.width;
  const auto* branch = static_cast<const bf16*>(work.branch);
  auto* normed = static_cast<bf16*>(work.normed);
  const auto width = static_cast<float>(work.width);
  float value[kVectors][8];
  float total = 0;
#pragma unroll
  for (int j = 0; j < kVectors; ++j) {
    const int at = lane + 32 * j;
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
    for (int k = 0; k < 8; ++k) total += value[j][k];
  }
  const float mean = warp_sum(total) / width;
  float squares = 0;
#pragma unroll
  for (int j = 0; j < kVectors; ++j) {
    if (lane + 32 * j >= vectors) continue;
#pragma unroll
    for (int k = 0; k < 8; ++k) squares += (value[j][k] - mean) * (value[j][k] - mean);
  }
  const float rstd = rsqrtf(warp_sum(squares) / width + kEpsilon);
  if (lane == 0) {
    work.mean[row] = mean;
    work.rstd[row] = rstd;
  }
#pragma unroll
  for (int j = 0; j < kVectors; ++j) {
    const int at = lane + 32 * j;
    if (at >= vectors) continue;
    float weight[8], bias[8];
    load8(work.weight + at * 8, weight);
    load8(work.bias + at * 8, bias);
#pragma unroll
    for (int k = 0; k < 8; ++k) value[j][k] = (value[j][k] - mean) * rstd * weight[k] + bias[k];
    store8(normed + base + at * 8, value[j]);
  }
}

template <int kVectors>
__device__ __forceinline__ void fetch(const AddNormGradient& work, std::int64_t row, unsigned char* room) {
  const std::int64_t base = row * work.width;
  auto* sums = reinterpret_cast<float*>(room);
  auto* normed = reinterpret_cast<bf16*>(sums + 2 * work.width);
#pragma unroll
  for (int j = 0; j < kVectors; ++j) {
    const int at = (threadIdx.x % 32 + 32 * j) * 8;
    if (at >= work.width) continue;
    __pipeline_memcpy_async(normed + at, static_cast<const bf16*>(work.normed) + base + at, 16);
    for (int half = 0; half < 8; half += 4) {
      __pipeline_memcpy_async(sums + at + half, work.saved_sum + base + at + half, 16);
      if (work.sum != nullptr) {
        __pipeline_memcpy_async(sums + work.width + at + half, work.sum + base + at + half, 16);
      }
    }
  }
  __pipeline_commit();
}

// Rows go over the blocks in turns; each block leaves its sums for the weight, the
// bias and the branch's bias in `partial` [blocks, 2 or 3, width].
template <int kVectors, bool kBranchBias>
__global__ __launch_bounds__(
    Layout<kVectors, kBranchBias>::kThreads,
    Layout<kVectors, kBranchBias>::kBlocksAProcessor) void backward(AddNormGradient work) {
  extern __shared__ __align__(16) float shared[];
  using Form = Layout<kVectors, kBranchBias>;
  constexpr int kThreads = Form::kThreads;
  constexpr int kWarps = kThreads / 32;
  constexpr int kSums = Form::kSums;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int vectors = static_cast<int>(work.width / 8);
  const auto width = static_cast<float>(work.width);
  auto* branch = static_cast<bf16*>(work.branch);
  float for_weight[kVectors][8] = {}, for_bias[kVectors][8] = {};
  float for_branch_bias[kBranchBias ? kVectors : 1][8] = {};
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kWarps + warp;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kWarps;
  const auto room = [&](int which) {
    return reinterpret_cast<unsigned char*>(shared) + (warp * Form::kAhead + which) * work.width * kRowBytes;
  };
  if (Form::kAhead > 0 && first < work.rows) fetch<kVectors>(work, first, room(0));
  int turn = 0;
  for (std::int64_t row = first; row < work.rows; row += step, turn ^= 1) {
    const std::int64_t base = row * work.width;
    const float mean = work.mean[row], rstd = work.rstd[row];
    RowInputs inputs{static_cast<const bf16*>(work.normed) + base, work.saved_sum + base,
                     work.sum == nullptr ? nullptr : work.sum + base};
    if (Form::kAhead > 0) {
      if (row + step < work.rows) {
        fetch<kVectors>(work, row + step, room(turn ^ 1));
        __pipeline_wait_prior(1);
      } else {
        __pipeline_wait_prior(0);
      }
      const auto* sums = reinterpret_cast<const float*>(room(turn));
      inputs = {reinterpret_cast<const bf16*>(sums + 2 * work.width), sums,
                work.sum == nullptr ? nullptr : sums + work.width};
    }
    float standard[kVectors][8], d[kVectors][8];
    float sum = 0, product = 0;
#pragma unroll
    for (int j = 0; j < kVectors; ++j) {
      const int at = lane + 32 * j;
      if (at >= vectors) continue;
      float weight[8];
      load8(inputs.normed + at * 8, d[j]);
      load8(inputs.saved_sum + at * 8, standard[j]);
      load8(work.weight + at * 8, weight);
#pragma unroll
      for (int k = 0; k < 8; ++k) {
        standard[j][k] = (standard[j][k] - mean) * rstd;
        for_weight[j][k] += d[j][k] * standard[j][k];
        for_bias[j][k] += d[j][k];
        d[j][k] *= weight[k];
        sum += d[j][k];
        product += d[j][k] * standard[j][k];
      }
    }
    sum = warp_sum(sum) / width;
    product = warp_sum(product) / width;
#pragma unroll
    for (int j = 0; j < kVectors; ++j) {
      const int at = lane + 32 * j;
      if (at >= vectors) continue;
      float result[8] = {};
      if (inputs.sum != nullptr) load8(inputs.sum + at * 8, result);
#pragma unroll
      for (int k = 0; k < 8; ++k) {
        result[k] += rstd * (d[j][k] - sum - standard[j][k] * product);
        if (kBranchBias) for_branch_bias[kBranchBias ? j : 0][k] += result[k];
      }
      store8(work.x + base + at * 8, result);
      if (branch != nullptr) store8(branch + base + at * 8, result);
    }
  }
  __syncthreads();  // what the rows were fetched to is used again
  const auto columns = static_cast<int>(work.width);
  for (int i = threadIdx.x; i < kSums * columns; i += kThreads) shared[i] = 0;
  __syncthreads();
  for (int turn = 0; turn < kWarps; ++turn) {
    if (warp == turn) {
#pragma unroll
      for (int j = 0; j < kVectors; ++j) {
        const int at = lane + 32 * j;
        if (at >= vectors) continue;
#pragma unroll
        for (int k = 0; k < 8; ++k) {
          shared[at * 8 + k] += for_weight[j][k];
          shared[columns + at * 8 + k] += for_bias[j][k];
          if (kBranchBias) shared[2 * columns + at * 8 + k] += for_branch_bias[kBranchBias ? j : 0][k];
        }
      }
    }
    __syncthreads();
  }
  for (int i = threadIdx.x; i < kSums * columns; i += kThreads) {
    work.partial[static_cast<std::int64_t>(blockIdx.x) * kSums * columns + i] = shared[i];
  }
}

template <int kVectors>
cudaError_t launch_forward(const AddNorm& work, cudaStream_t stream) {
  constexpr int kRows = kForwardThreads / 32;
  const auto blocks = static_cast<unsigned>((work.rows + kRows - 1) / kRows);
  if (work.branch != nullptr) {
    forward<kVectors, true><<<blocks, kForwardThreads, 0, stream>>>(work);
  } else {
    forward<kVectors, false><<<blocks, kForwardThreads, 0, stream>>>(work);
  }
  return cudaGetLastError();
}

template <int kVectors, bool kBranchBias>
cudaError_t launch_backward(const AddNormGradient& work, cudaStream_t stream) {
  using Form = Layout<kVectors, kBranchBias>;
  const std::int64_t rows = Form::kThreads / 32 * Form::kAhead * work.width * kRowBytes;
  const std::int64_t sums = Form::kSums * work.width * static_cast<std::int64_t>(sizeof(float));
  const auto bytes = static_cast<std::size_t>(rows > sums ? rows : sums);
  if (const auto set =
          cudaFuncSetAttribute(backward<kVectors, kBranchBias>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(bytes));
      set != cudaSuccess) {
    return set;
  }
  backward<kVectors, kBranchBias><<<Form::kBlocks, Form::kThreads, bytes, stream>>>(work);
  if (const auto launched = cudaGetLastError(); launched != cudaSuccess) return launched;
  return add_partials({work.partial,
                       {work.weight_gradient, work.bias_gradient, work.branch_bias_gradient},
                       Form::kBlocks,
                       Form::kSums,
                       work.width},
                      stream);
}

template <int kVectors>
cudaError_t launch_backward(const AddNormGradient& work, cudaStream_t stream) {
  return work.branch_bias_gradient != nullptr ? launch_backward<kVectors, true>(work, stream)
                                              : launch_backward<kVectors, false>(work, stream);
}

}  // namespace

cudaError_t add_norm(const AddNorm& work, cudaStream_t stream) {
  switch ((work.width + 255) / 256) {
    case 1:
      return launch_forward<1>(work, stream);
    case 2:
      return launch_forward<2>(work, stream);
    case 3:
      return launch_forward<3>(work, stream);
    case 4:
      return launch_forward<4>(work, stream);
    case 5:
      return launch_forward<5>(work, stream);
    case 6:
      return launch_forward<6>(work, stream);
    default:
      return launch_forward<8>(work, stream);
  }
}

std::int64_t add_norm_partials(std::int64_t width) { return kMostPartials * width; }

cudaError_t add_norm_gradient(const AddNormGradient& work, cudaStream_t stream) {
  switch ((work.width + 255) / 256) {
    case 1:
      return launch_backward<1>(work, stream);
    case 2:
      return launch_backward<2>(work, stream);
    case 3:
      return launch_backward<3>(work, stream);
    case 4:
      return launch_backward<4>(work, stream);
    case 5:
      return launch_backward<5>(work, stream);
    case 6:
      return launch_backward<6>(work, stream);
    default:
      return launch_backward<8>(work, stream);
  }
}

}  // namespace bulkhead::cuda
