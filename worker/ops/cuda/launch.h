// The kernels' plain interface: no torch here, so that they compile in seconds
// and with nvcc alone.
//
// Pointers are device memory, aligned to 16 bytes; matrices are row-major.  Each
// call only queues work on `stream` and returns what queueing it said.  Sums
// are made in an order that depends on shapes alone, but where it says
// otherwise: equal inputs give equal bits.
#pragma once

#include <cstdint>
#include <cuda_runtime_api.h>

namespace bulkhead::cuda {

// ----- Cross entropy -----

struct CrossEntropy {
  void* scores;                // bfloat16 [rows, stride]; replaced by scale · gradient, zero past `classes`
  const std::int64_t* labels;  // [rows]; −100: the row does not count
  float* losses;               // [rows]; 0 where the row does not count
  std::int64_t* correct;       // [rows]: 1 where the label is the first of the largest scores, else 0
  std::int64_t rows, classes;
  std::int64_t stride;  // ≥ classes, a multiple of 8
  float scale;          // above 0
  bool with_gradient;   // else the scores stay
};
cudaError_t cross_entropy(const CrossEntropy& work, cudaStream_t stream);

// ----- Residual add and layer norm -----

inline constexpr std::int64_t kWidestNorm = 2048;

struct AddNorm {
  const float* x;       // [rows, width]
  const void* branch;   // bfloat16 [rows, width], or null
  const float* weight;  // [width]
  const float* bias;
  float* sum;    // x + branch; unused without a branch
  void* normed;  // bfloat16 [rows, width]
  float* mean;   // [rows], for the gradient
  float* rstd;
  std::int64_t rows, width;  // width: a multiple of 8, ≤ kWidestNorm
};
cudaError_t add_norm(const AddNorm& work, cudaStream_t stream);

struct AddNormGradient {
  const void* normed;  // bfloat16 [rows, width]: the gradient of `normed`
  const float* sum;    // that of `sum`, or null
  const float* saved_sum;
  const float* mean;
  const float* rstd;
  const float* weight;
  float* x;                // [rows, width], that of x
  void* branch;            // the same in bfloat16, or null
  float* partial;          // scratch: add_norm_partials(width) floats
  float* weight_gradient;  // [width], added to
  float* bias_gradient;
  float* branch_bias_gradient;  // [width], the sum over rows of x's gradient is added to it; or null
  std::int64_t rows, width;
};
std::int64_t add_norm_partials(std::int64_t width);
cudaError_t add_norm_gradient(const AddNormGradient& work, cudaStream_t stream);

// ----- Sum over rows -----

// sums [columns] += Σ of bfloat16 [rows, columns]; columns a multiple of 8.
std::int64_t row_sum_partials(std::int64_t rows, std::int64_t columns);
cudaError_t add_row_sum(const void* values, std::int64_t rows, std::int64_t columns, float* partial,
                        float* sums, cudaStream_t stream);

// partial [parts, count, columns] is added up over the parts into `count` sums of
// `columns`, at most three.
struct PartialSums {
  const float* partial;
  float* sums[3];
  std::int64_t parts, count, columns;
};
cudaError_t add_partials(const PartialSums& work, cudaStream_t stream);

// Both write a matrix and add its rows up on the way, as add_row_sum() does;
// nothing is added up where `sums` is null.  partial: row_sum_partials() floats.
struct Packing {
  const void* parts[3];  // bfloat16 [rows, width]
  void* packed;          // bfloat16 [rows, 3 width]: the three side by side
  std::int64_t rows, width;
};
cudaError_t pack_three(const Packing& work, float* partial, float* sums, cudaStream_t stream);

// gradient, bfloat16 [rows, columns], becomes that of what GELU (tanh form) was
// applied to, which is `inner`.
cudaError_t gelu_gradient(void* gradient, const void* inner, std::int64_t rows, std::int64_t columns,
                          float* partial, float* sums, cudaStream_t stream);

// ----- Embedding -----

struct Embedding {
  const std::int64_t* tokens;   // [sequences, length], all in the table
  const float* token_table;     // [any, width]
  const float* position_table;  // [≥ length, width], or null
  float* rows;                  // [sequences, length, width]
  std::int64_t sequences, length, width;
};
cudaError_t embedding(const Embedding& work, cudaStream_t stream);

struct EmbeddingGradient {
  const std::int64_t* tokens;
  const float* rows;         // the gradient
  float* token_gradient;     // added to, atomically: in any order.  Or null
  float* position_gradient;  // added to, in a fixed order; or null
  std::int64_t sequences, length, width;
};
cudaError_t embedding_gradient(const EmbeddingGradient& work, cudaStream_t stream);

// ----- AdamW -----

// A piece of one parameter, at most kChunk numbers.
struct AdamwChunk {
  float* parameter;
  const float* gradient;
  float* first;
  float* second;
  void* copy;  // bfloat16, or null
  std::int64_t count;
  float weight_decay;
  std::int32_t aligned;  // all pointers are multiples of 16 bytes
};
inline constexpr std::int64_t kChunk = 1 << 14;

// chunks, device memory, `count` of them.  norm: of all gradients together, 2-norm,
// 0-dim double.  partial: scratch of `count` floats.
cudaError_t gradient_norm(const AdamwChunk* chunks, std::int64_t count, float* partial, double* norm,
                          cudaStream_t stream);

// In device memory too, so that a recorded step can be replayed with the next one's.
struct AdamwStep {
  float lr, beta1, beta2, eps;
  float correction1, root_correction2;  // 1 − β1ᵗ and √(1 − β2ᵗ)
  float max_norm;                       // 0: no clipping
};
// One update, gradients scaled by min(1, max_norm / (norm + 1e-6)); by 1 where
// the norm is not finite.
cudaError_t adamw(const AdamwChunk* chunks, std::int64_t count, const double* norm, const AdamwStep* step,
                  cudaStream_t stream);

}  // namespace bulkhead::cuda
