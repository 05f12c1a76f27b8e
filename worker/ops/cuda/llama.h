// The plain interface of the kernels that Llama's blocks need beside launch.h's,
// under the same rules.
#pragma once

#include <cstdint>
#include <cuda_runtime_api.h>

namespace bulkhead::cuda {

// ----- Residual add and RMSNorm -----

inline constexpr std::int64_t kWidestRmsNorm = 8192;

struct RmsNorm {
  const float* x;            // [rows, width]
  const void* branch;        // bfloat16 [rows, width], or null
  const float* weight;       // [width]
  float* sum;                // x + branch; unused without a branch
  void* normed;              // bfloat16 [rows, width]
  float* rstd;               // [rows]: 1/√(mean square + eps)
  std::int64_t rows, width;  // width: a multiple of 8, ≤ kWidestRmsNorm
  float eps;
};
cudaError_t rms_norm(const RmsNorm& work, cudaStream_t stream);

struct RmsNormGradient {
  const void* normed;  // bfloat16 [rows, width]: the gradient of `normed`
  const float* sum;    // that of `sum`, or null
  const float* saved_sum;
  const float* rstd;
  const float* weight;
  float* x;                // [rows, width], that of x
  void* branch;            // the same in bfloat16, or null
  float* partial;          // scratch: rms_norm_partials(width) floats
  float* weight_gradient;  // [width], added to
  std::int64_t rows, width;
};
std::int64_t rms_norm_partials(std::int64_t width);
cudaError_t rms_norm_gradient(const RmsNormGradient& work, cudaStream_t stream);

// ----- SwiGLU -----

// activated = gate · σ(gate) · up; all bfloat16, `count` numbers, a multiple of 8.
cudaError_t swiglu(const void* gate, const void* up, void* activated, std::int64_t count,
                   cudaStream_t stream);

// From the gradient of `activated` those of gate and up.
struct SwigluGradient {
  const void* activated;
  const void* gate;
  const void* up;
  void* gate_gradient;
  void* up_gradient;
  std::int64_t count;
};
cudaError_t swiglu_gradient(const SwigluGradient& work, cudaStream_t stream);

// ----- Rotary embedding -----

// Turns numbers i and i + dim/2 of each head as one point by the angle of its
// position; bfloat16.
struct Rotary {
  const void* x;     // [batch, length, heads, dim]
  void* rotated;     // the same shape, dense
  const float* cos;  // [length, dim/2]
  const float* sin;
  std::int64_t batch, length, heads, dim;                 // dim: a multiple of 16
  std::int64_t batch_stride, length_stride, head_stride;  // of x, in numbers, multiples of 8
  float direction;                                        // 1, or −1 for the gradient
};
cudaError_t rotary(const Rotary& work, cudaStream_t stream);

}  // namespace bulkhead::cuda
