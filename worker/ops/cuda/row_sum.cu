// Sums over rows in two stages, both in a fixed order: parts of the rows, then
// the parts.
#include <algorithm>

#include "ops/cuda/launch.h"
#include "ops/cuda/vector.cuh"

namespace bulkhead::cuda {
namespace {

constexpr int kColumns = 256;  // of a block: 32 threads of eight
constexpr int kRowsAtOnce = 8;

__global__ void part_sums(const bf16* values, std::int64_t rows, int columns, float* partial) {
  __shared__ float shared[kRowsAtOnce][kColumns];
  const int column = (blockIdx.x * 32 + threadIdx.x) * 8;
  float sum[8] = {};
  if (column < columns) {
    const std::int64_t begin = rows * blockIdx.y / gridDim.y, end = rows * (blockIdx.y + 1) / gridDim.y;
#pragma unroll 4
    for (std::int64_t row = begin + threadIdx.y; row < end; row += kRowsAtOnce) {
      float value[8];
      load8(values + row * columns + column, value);
#pragma unroll
      for (int k = 0; k < 8; ++k) sum[k] += value[k];
    }
  }
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

__global__ void add_parts(const float* partial, int parts, std::int64_t stride, int columns, float* sums) {
  __shared__ float shared[kRowsAtOnce][33];
  const int column = blockIdx.x * 32 + threadIdx.x;
  float sum = 0;
  if (column < columns) {
    for (int part = threadIdx.y; part < parts; part += kRowsAtOnce) sum += partial[part * stride + column];
  }
  shared[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= columns) return;
#pragma unroll
  for (int i = 1; i < kRowsAtOnce; ++i) sum += shared[i][threadIdx.x];
  sums[column] += sum;
}

int parts_of(std::int64_t rows, std::int64_t columns) {
  const std::int64_t across = (columns + kColumns - 1) / kColumns;
  return static_cast<int>(std::max<std::int64_t>(1, std::min(1056 / across, rows / 32)));
}

}  // namespace

cudaError_t add_partials(const float* partial, std::int64_t parts, std::int64_t stride, std::int64_t columns,
                         float* sums, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>((columns + 31) / 32);
  add_parts<<<blocks, dim3(32, kRowsAtOnce), 0, stream>>>(partial, static_cast<int>(parts), stride,
                                                          static_cast<int>(columns), sums);
  return cudaGetLastError();
}

std::int64_t row_sum_partials(std::int64_t rows, std::int64_t columns) {
  return parts_of(rows, columns) * columns;
}

cudaError_t add_row_sum(const void* values, std::int64_t rows, std::int64_t columns, float* partial,
                        float* sums, cudaStream_t stream) {
  const int parts = parts_of(rows, columns);
  const dim3 grid(static_cast<unsigned>((columns + kColumns - 1) / kColumns), static_cast<unsigned>(parts));
  part_sums<<<grid, dim3(32, kRowsAtOnce), 0, stream>>>(static_cast<const bf16*>(values), rows,
                                                        static_cast<int>(columns), partial);
  if (const auto launched = cudaGetLastError(); launched != cudaSuccess) return launched;
  return add_partials(partial, parts, columns, columns, sums, stream);
}

}  // namespace bulkhead::cuda
