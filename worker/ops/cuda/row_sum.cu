// Sums over rows in two stages, both in a fixed order: parts of the rows, then
// the parts.  What makes the rows on the way reads and writes them once.
#include <algorithm>

#include "ops/cuda/launch.h"
#include "ops/cuda/vector.cuh"

namespace bulkhead::cuda {
namespace {

constexpr int kColumns = 256;  // of a block: 32 threads of eight
constexpr int kRowsAtOnce = 8;
constexpr int kPartsAtOnce = 32;
constexpr std::int64_t kBlocks = 1056;  // about eight on each of Hopper's multiprocessors

// ----- Where eight numbers of a row come from -----

struct Plain {
  const bf16* values;
  std::int64_t columns;
  __device__ __forceinline__ void operator()(std::int64_t row, int column, float* to) const {
    load8(values + row * columns + column, to);
  }
};

// Three matrices side by side, written as one.
struct Packed {
  const bf16* parts[3];
  bf16* packed;
  int width;  // of each
  __device__ __forceinline__ void operator()(std::int64_t row, int column, float* to) const {
    const int part = column / width;
    const bf16* from = part == 0 ? parts[0] : part == 1 ? parts[1] : parts[2];
    const uint4 bits = *reinterpret_cast<const uint4*>(from + row * width + column - part * width);
    *reinterpret_cast<uint4*>(packed + row * 3 * width + column) = bits;
    load8(reinterpret_cast<const bf16*>(&bits), to);
  }
};

// A gradient, taken through the GELU (tanh form) of `inner` where it lies.
struct ThroughGelu {
  bf16* gradient;
  const bf16* inner;
  std::int64_t columns;
  __device__ __forceinline__ void operator()(std::int64_t row, int column, float* to) const {
    constexpr float kRoot = 0.7978845608f, kCube = 0.044715f;  // √(2/π), and Hendrycks and Gimpel's
    float x[8];
    load8(gradient + row * columns + column, to);
    load8(inner + row * columns + column, x);
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      const float square = x[k] * x[k];
      float tanh;
      asm("tanh.approx.f32 %0,%1;" : "=f"(tanh) : "f"(kRoot * x[k] * (1 + kCube * square)));
      to[k] *= 0.5f * (1 + tanh) + 0.5f * x[k] * (1 - tanh * tanh) * kRoot * (1 + 3 * kCube * square);
    }
    store8(gradient + row * columns + column, to);
  }
};

// ----- The sums -----

template <class Values>
__global__ void part_sums(Values values, std::int64_t rows, int columns, float* partial) {
  __shared__ float shared[kRowsAtOnce][kColumns];
  const int column = (blockIdx.x * 32 + threadIdx.x) * 8;
  float sum[8] = {};
  if (column < columns) {
    const std::int64_t begin = rows * blockIdx.y / gridDim.y, end = rows * (blockIdx.y + 1) / gridDim.y;
#pragma unroll 4
    for (std::int64_t row = begin + threadIdx.y; row < end; row += kRowsAtOnce) {
      float value[8];
      values(row, column, value);
#pragma unroll
      for (int k = 0; k < 8; ++k) sum[k] += value[k];
    }
  }
  if (partial == nullptr) return;
#pragma unroll
  for (int k = 0; k < 8; ++k) shared[threadIdx.y][threadIdx.x * 8 + k] = sum[k];
  __syncthreads();
  const int thread = threadIdx.y * 32 + threadIdx.x;
  float total = 0;
#pragma unroll
  for (int i = 0; i < kRowsAtOnce; ++i) total += shared[i][thread];
  const int at = blockIdx.x * kColumns + thread;
  if (at < columns) partial[static_cast<std::int64_t>(blockIdx.y) * columns + at] = total;
}

__global__ void add_parts(PartialSums work) {
  __shared__ float shared[kPartsAtOnce][33];
  const int columns = static_cast<int>(work.columns), stride = static_cast<int>(work.count) * columns;
  const int at = blockIdx.x * 32 + threadIdx.x;  // of all sums together
  float sum = 0;
  if (at < stride) {
#pragma unroll 4
    for (int part = threadIdx.y; part < work.parts; part += kPartsAtOnce) {
      sum += work.partial[static_cast<std::int64_t>(part) * stride + at];
    }
  }
  shared[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || at >= stride) return;
#pragma unroll
  for (int i = 1; i < kPartsAtOnce; ++i) sum += shared[i][threadIdx.x];
  const int which = at / columns;
  float* sums = which == 0 ? work.sums[0] : which == 1 ? work.sums[1] : work.sums[2];
  sums[at - which * columns] += sum;
}

int parts_of(std::int64_t rows, std::int64_t columns) {
  const std::int64_t across = (columns + kColumns - 1) / kColumns;
  return static_cast<int>(std::max<std::int64_t>(1, std::min(kBlocks / across, rows / 32)));
}

template <class Values>
cudaError_t add_sums(const Values& values, std::int64_t rows, std::int64_t columns, float* partial,
                     float* sums, cudaStream_t stream) {
  const int parts = parts_of(rows, columns);
  const dim3 grid(static_cast<unsigned>((columns + kColumns - 1) / kColumns), static_cast<unsigned>(parts));
  part_sums<<<grid, dim3(32, kRowsAtOnce), 0, stream>>>(values, rows, static_cast<int>(columns),
                                                        sums == nullptr ? nullptr : partial);
  if (const auto launched = cudaGetLastError(); launched != cudaSuccess || sums == nullptr) return launched;
  return add_partials({partial, {sums}, parts, 1, columns}, stream);
}

}  // namespace

cudaError_t add_partials(const PartialSums& work, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>((work.count * work.columns + 31) / 32);
  add_parts<<<blocks, dim3(32, kPartsAtOnce), 0, stream>>>(work);
  return cudaGetLastError();
}

std::int64_t row_sum_partials(std::int64_t rows, std::int64_t columns) {
  return parts_of(rows, columns) * columns;
}

cudaError_t add_row_sum(const void* values, std::int64_t rows, std::int64_t columns, float* partial,
                        float* sums, cudaStream_t stream) {
  return add_sums(Plain{static_cast<const bf16*>(values), columns}, rows, columns, partial, sums, stream);
}

cudaError_t pack_three(const Packing& work, float* partial, float* sums, cudaStream_t stream) {
  Packed packed{{}, static_cast<bf16*>(work.packed), static_cast<int>(work.width)};
  for (int i = 0; i < 3; ++i) packed.parts[i] = static_cast<const bf16*>(work.parts[i]);
  return add_sums(packed, work.rows, 3 * work.width, partial, sums, stream);
}

cudaError_t gelu_gradient(void* gradient, const void* inner, std::int64_t rows, std::int64_t columns,
                          float* partial, float* sums, cudaStream_t stream) {
  const ThroughGelu through{static_cast<bf16*>(gradient), static_cast<const bf16*>(inner), columns};
  return add_sums(through, rows, columns, partial, sums, stream);
}

}  // namespace bulkhead::cuda
