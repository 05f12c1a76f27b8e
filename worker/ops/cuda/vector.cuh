// Eight numbers at a time, in float32 whatever they are stored as; addresses
// are multiples of 16 bytes.  And sums over a warp and a block, in an order that
// depends on nothing but the shape.
#pragma once

#include <cstdint>
#include <cuda_bf16.h>

namespace bulkhead::cuda {

using bf16 = __nv_bfloat16;

__device__ __forceinline__ void load8(const bf16* from, float* to) {
  const uint4 bits = *reinterpret_cast<const uint4*>(from);
  const auto* pairs = reinterpret_cast<const __nv_bfloat162*>(&bits);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = __bfloat1622float2(pairs[i]);
    to[2 * i] = pair.x;
    to[2 * i + 1] = pair.y;
  }
}

__device__ __forceinline__ void load8(const float* from, float* to) {
  *reinterpret_cast<float4*>(to) = reinterpret_cast<const float4*>(from)[0];
  *reinterpret_cast<float4*>(to + 4) = reinterpret_cast<const float4*>(from)[1];
}

__device__ __forceinline__ void store8(bf16* to, const float* from) {
  uint4 bits;
  auto* pairs = reinterpret_cast<__nv_bfloat162*>(&bits);
#pragma unroll
  for (int i = 0; i < 4; ++i) pairs[i] = __floats2bfloat162_rn(from[2 * i], from[2 * i + 1]);
  *reinterpret_cast<uint4*>(to) = bits;
}

__device__ __forceinline__ void store8(float* to, const float* from) {
  reinterpret_cast<float4*>(to)[0] = *reinterpret_cast<const float4*>(from);
  reinterpret_cast<float4*>(to)[1] = *reinterpret_cast<const float4*>(from + 4);
}

// Every lane gets the sum.
__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) value += __shfl_xor_sync(~0u, value, offset);
  return value;
}

// Thread 0 gets the sum; `warps` is scratch of one float a warp.
__device__ __forceinline__ float block_sum(float value, float* warps) {
  value = warp_sum(value);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  if (threadIdx.x >= 32) return 0;
  return warp_sum(threadIdx.x < blockDim.x / 32 ? warps[threadIdx.x] : 0.f);
}

}  // namespace bulkhead::cuda
