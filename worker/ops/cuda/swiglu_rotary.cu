// Element by element, eight at a time.
#include "ops/cuda/llama.h"
#include "ops/cuda/vector.cuh"

namespace bulkhead::cuda {
namespace {

constexpr int kThreads = 256;

unsigned blocks_for(std::int64_t items) { return static_cast<unsigned>((items + kThreads - 1) / kThreads); }

__global__ void swiglu_forward(const bf16* gate, const bf16* up, bf16* activated, std::int64_t vectors) {
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= vectors) return;
  float g[8], u[8];
  load8(gate + at * 8, g);
  load8(up + at * 8, u);
#pragma unroll
  for (int k = 0; k < 8; ++k) u[k] *= g[k] / (1.f + __expf(-g[k]));
  store8(activated + at * 8, u);
}

__global__ void swiglu_backward(SwigluGradient work, std::int64_t vectors) {
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= vectors) return;
  float d[8], g[8], u[8];
  load8(static_cast<const bf16*>(work.activated) + at * 8, d);
  load8(static_cast<const bf16*>(work.gate) + at * 8, g);
  load8(static_cast<const bf16*>(work.up) + at * 8, u);
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    const float sigmoid = 1.f / (1.f + __expf(-g[k]));
    const float silu = g[k] * sigmoid;
    g[k] = d[k] * u[k] * (sigmoid + silu * (1.f - sigmoid));
    u[k] = d[k] * silu;
  }
  store8(static_cast<bf16*>(work.gate_gradient) + at * 8, g);
  store8(static_cast<bf16*>(work.up_gradient) + at * 8, u);
}

// An item is eight numbers of a head's first half and their partners.
__global__ void rotate(Rotary work, std::int64_t items) {
  const std::int64_t item = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (item >= items) return;
  const std::int64_t half = work.dim / 2, eights = half / 8;
  const std::int64_t at = item % eights * 8;
  const std::int64_t row = item / eights;  // (batch, position, head)
  const std::int64_t head = row % work.heads, place = row / work.heads;
  const std::int64_t position = place % work.length, sample = place / work.length;
  const bf16* from = static_cast<const bf16*>(work.x) + sample * work.batch_stride +
                     position * work.length_stride + head * work.head_stride + at;
  bf16* to = static_cast<bf16*>(work.rotated) + row * work.dim + at;
  float a[8], b[8], cos[8], sin[8];
  load8(from, a);
  load8(from + half, b);
  load8(work.cos + position * half + at, cos);
  load8(work.sin + position * half + at, sin);
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    const float turned = a[k] * cos[k] - work.direction * b[k] * sin[k];
    b[k] = b[k] * cos[k] + work.direction * a[k] * sin[k];
    a[k] = turned;
  }
  store8(to, a);
  store8(to + half, b);
}

}  // namespace

cudaError_t swiglu(const void* gate, const void* up, void* activated, std::int64_t count,
                   cudaStream_t stream) {
  const std::int64_t vectors = count / 8;
  swiglu_forward<<<blocks_for(vectors), kThreads, 0, stream>>>(
      static_cast<const bf16*>(gate), static_cast<const bf16*>(up), static_cast<bf16*>(activated), vectors);
  return cudaGetLastError();
}

cudaError_t swiglu_gradient(const SwigluGradient& work, cudaStream_t stream) {
  const std::int64_t vectors = work.count / 8;
  swiglu_backward<<<blocks_for(vectors), kThreads, 0, stream>>>(work, vectors);
  return cudaGetLastError();
}

cudaError_t rotary(const Rotary& work, cudaStream_t stream) {
  const std::int64_t items = work.batch * work.length * work.heads * (work.dim / 16);
  rotate<<<blocks_for(items), kThreads, 0, stream>>>(work, items);
  return cudaGetLastError();
}

}  // namespace bulkhead::cuda
