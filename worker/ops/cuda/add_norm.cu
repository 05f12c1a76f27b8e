// A warp a row, the row in registers.
#include "ops/cuda/launch.h"
#include "ops/cuda/vector.cuh"

namespace bulkhead::cuda {
namespace {

constexpr float kEpsilon = 1e-5f;
constexpr int kForwardThreads = 256;
constexpr int kBackwardThreads = 256;
constexpr int kBackwardBlocks = 264;  // two on each of Hopper's multiprocessors

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

// Rows go over the blocks in turns; each block leaves its sums for the weight and
// the bias in `partial` [blocks, 2, width].
template <int kVectors>
__global__ __launch_bounds__(kBackwardThreads, 2) void backward(AddNormGradient work) {
  extern __shared__ float shared[];
  constexpr int kWarps = kBackwardThreads / 32;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int vectors = static_cast<int>(work.width / 8);
  const auto width = static_cast<float>(work.width);
  const auto* gradient = static_cast<const bf16*>(work.normed);
  auto* branch = static_cast<bf16*>(work.branch);
  float for_weight[kVectors][8] = {}, for_bias[kVectors][8] = {};
  for (std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kWarps + warp; row < work.rows;
       row += static_cast<std::int64_t>(gridDim.x) * kWarps) {
    const std::int64_t base = row * work.width;
    const float mean = work.mean[row], rstd = work.rstd[row];
    float standard[kVectors][8], d[kVectors][8];
    float sum = 0, product = 0;
#pragma unroll
    for (int j = 0; j < kVectors; ++j) {
      const int at = lane + 32 * j;
      if (at >= vectors) continue;
      float weight[8];
      load8(gradient + base + at * 8, d[j]);
      load8(work.saved_sum + base + at * 8, standard[j]);
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
      if (work.sum != nullptr) load8(work.sum + base + at * 8, result);
#pragma unroll
      for (int k = 0; k < 8; ++k) result[k] += rstd * (d[j][k] - sum - standard[j][k] * product);
      store8(work.x + base + at * 8, result);
      if (branch != nullptr) store8(branch + base + at * 8, result);
    }
  }
  const auto columns = static_cast<int>(work.width);
  for (int i = threadIdx.x; i < 2 * columns; i += kBackwardThreads) shared[i] = 0;
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
        }
      }
    }
    __syncthreads();
  }
  for (int i = threadIdx.x; i < 2 * columns; i += kBackwardThreads) {
    work.partial[static_cast<std::int64_t>(blockIdx.x) * 2 * columns + i] = shared[i];
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

template <int kVectors>
cudaError_t launch_backward(const AddNormGradient& work, cudaStream_t stream) {
  const auto bytes = static_cast<std::size_t>(2 * work.width) * sizeof(float);
  backward<kVectors><<<kBackwardBlocks, kBackwardThreads, bytes, stream>>>(work);
  return cudaGetLastError();
}

}  // namespace

// partial [parts, stride], of which `columns` are summed into `sums`.
cudaError_t add_partials(const float* partial, std::int64_t parts, std::int64_t stride, std::int64_t columns,
                         float* sums, cudaStream_t stream);

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

std::int64_t add_norm_partials(std::int64_t width) { return kBackwardBlocks * 2 * width; }

cudaError_t add_norm_gradient(const AddNormGradient& work, cudaStream_t stream) {
  const auto launched = [&] {
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
  }();
  if (launched != cudaSuccess) return launched;
  const std::int64_t stride = 2 * work.width;
  if (const auto added =
          add_partials(work.partial, kBackwardBlocks, stride, work.width, work.weight_gradient, stream);
      added != cudaSuccess) {
    return added;
  }
  return add_partials(work.partial + work.width, kBackwardBlocks, stride, work.width, work.bias_gradient,
                      stream);
}

}  // namespace bulkhead::cuda
