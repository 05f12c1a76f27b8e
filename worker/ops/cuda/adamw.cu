// A block a chunk; the norm's partial sums are added by one block, in order.
#include "ops/cuda/launch.h"
#include "ops/cuda/vector.cuh"

namespace bulkhead::cuda {
namespace {

constexpr int kThreads = 512;
constexpr double kClipEpsilon = 1e-6;  // as torch.nn.utils.clip_grad_norm_

__global__ void squares(const AdamwChunk* chunks, float* partial) {
  __shared__ float warps[kThreads / 32];
  const AdamwChunk chunk = chunks[blockIdx.x];
  const std::int64_t eights = chunk.aligned ? chunk.count / 8 : 0;
  float sum = 0;
  for (std::int64_t i = threadIdx.x; i < eights; i += kThreads) {
    float gradient[8];
    load8(chunk.gradient + i * 8, gradient);
#pragma unroll
    for (int k = 0; k < 8; ++k) sum += gradient[k] * gradient[k];
  }
  for (std::int64_t i = eights * 8 + threadIdx.x; i < chunk.count; i += kThreads) {
    sum += chunk.gradient[i] * chunk.gradient[i];
  }
  sum = block_sum(sum, warps);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void root_of_sum(const float* partial, std::int64_t count, double* norm) {
  __shared__ double shared[kThreads];
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < count; i += kThreads) sum += partial[i];
  shared[threadIdx.x] = sum;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) *norm = sqrt(shared[0]);
}

struct Rule {
  float factor, keep, step_size;
  AdamwStep step;
  __device__ __forceinline__ void operator()(float& parameter, float gradient, float& first,
                                             float& second) const {
    gradient *= factor;
    first = step.beta1 * first + (1 - step.beta1) * gradient;
    second = step.beta2 * second + (1 - step.beta2) * gradient * gradient;
    parameter = parameter * keep - step_size * first / (sqrtf(second) / step.root_correction2 + step.eps);
  }
};

__global__ void update(const AdamwChunk* chunks, const double* norm, const AdamwStep* given) {
  const AdamwStep step = *given;
  const AdamwChunk chunk = chunks[blockIdx.x];
  const double length = *norm;
  Rule rule{1, 1 - step.lr * chunk.weight_decay, step.lr / step.correction1, step};
  if (step.max_norm > 0 && isfinite(length)) {
    rule.factor = static_cast<float>(fmin(1.0, step.max_norm / (length + kClipEpsilon)));
  }
  auto* copy = static_cast<bf16*>(chunk.copy);
  const std::int64_t eights = chunk.aligned ? chunk.count / 8 : 0;
  for (std::int64_t i = threadIdx.x; i < eights; i += kThreads) {
    float parameter[8], gradient[8], first[8], second[8];
    load8(chunk.gradient + i * 8, gradient);
    load8(chunk.parameter + i * 8, parameter);
    load8(chunk.first + i * 8, first);
    load8(chunk.second + i * 8, second);
#pragma unroll
    for (int k = 0; k < 8; ++k) rule(parameter[k], gradient[k], first[k], second[k]);
    store8(chunk.parameter + i * 8, parameter);
    store8(chunk.first + i * 8, first);
    store8(chunk.second + i * 8, second);
    if (copy != nullptr) store8(copy + i * 8, parameter);
  }
  for (std::int64_t i = eights * 8 + threadIdx.x; i < chunk.count; i += kThreads) {
    rule(chunk.parameter[i], chunk.gradient[i], chunk.first[i], chunk.second[i]);
    if (copy != nullptr) copy[i] = __float2bfloat16(chunk.parameter[i]);
  }
}

}  // namespace

cudaError_t gradient_norm(const AdamwChunk* chunks, std::int64_t count, float* partial, double* norm,
                          cudaStream_t stream) {
  squares<<<static_cast<unsigned>(count), kThreads, 0, stream>>>(chunks, partial);
  root_of_sum<<<1, kThreads, 0, stream>>>(partial, count, norm);
  return cudaGetLastError();
}

cudaError_t adamw(const AdamwChunk* chunks, std::int64_t count, const double* norm, const AdamwStep* step,
                  cudaStream_t stream) {
  update<<<static_cast<unsigned>(count), kThreads, 0, stream>>>(chunks, norm, step);
  return cudaGetLastError();
}

}  // namespace bulkhead::cuda
