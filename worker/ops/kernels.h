// What the fused operations and the optimizer ask of a GPU: kernels of our own
// and cublasLt's products with their epilogues, on torch tensors.
//
// Built with CUDA and nvcc; elsewhere no_kernels.cpp takes its place and serve()
// is false for everything.  Whoever calls asks serve() first and has another way
// to the same result.  All but serve() only queue work on the current stream.  A
// failing call throws, as torch's own operations do.  The compute thread and
// autograd's, one at a time.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

namespace bulkhead::kernels {

// Whether what follows takes such tensors: on a GPU of compute capability 8.0 or
// later, the last dimension and all rows on multiples of 16 bytes.
bool serve(const at::Tensor& matrix);

// Whether Adamw takes parameters that lie where this one does.
bool has_gpu(const at::Tensor& tensor);

// ----- Products: bfloat16 matrices, sums in float32 -----
// x [rows,in], weight [out,in], bias [out], out and in multiples of 8.  A matrix's
// rows may lie further apart than they are long.

// x weight' + bias; no bias where it is undefined.  `into`, where defined, is
// what the result is written to.
at::Tensor product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                   const at::Tensor& into = {});

// inner = x weight' + bias, and gelu(inner) in its tanh form.
struct GeluProduct {
  at::Tensor inner, activated;
};
GeluProduct gelu_product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

// gradient [rows,out] times weight: [rows,in].
at::Tensor input_gradient(const at::Tensor& gradient, const at::Tensor& weight);

// The same, then through the GELU that `inner` went through; bias_sum [in] float32
// += Σ over rows of that, where it is defined.
at::Tensor gelu_input_gradient(const at::Tensor& gradient, const at::Tensor& weight, const at::Tensor& inner,
                               const at::Tensor& bias_sum);

// sum [out,in] float32 += gradient' x; `fresh`: sum = gradient' x.
void add_weight_gradient(const at::Tensor& sum, const at::Tensor& gradient, const at::Tensor& x, bool fresh);

// sum [out] float32 += Σ over rows of gradient.
void add_bias_gradient(const at::Tensor& sum, const at::Tensor& gradient);

// What gelu_input_gradient() may do after its product: `gradient` becomes that of
// `inner`, in place.
void gelu_gradient(const at::Tensor& gradient, const at::Tensor& inner, const at::Tensor& bias_sum);

// Three matrices [rows,width] side by side: [rows,3·width].  bias_sum [3·width]
// float32 += Σ over rows of that, where it is defined.
at::Tensor pack_three(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c,
                      const at::Tensor& bias_sum);

// ----- Norm and loss -----

// x float32 [rows,width], branch bfloat16 or undefined, width ≤ 2048: x + branch
// (x itself where there is no branch), layer norm of it in bfloat16, and its mean
// and 1/σ float32 [rows].
struct AddNorm {
  at::Tensor sum, normed, mean, rstd;
};
AddNorm add_norm(const at::Tensor& x, const at::Tensor& branch, const at::Tensor& weight,
                 const at::Tensor& bias);

// From the gradients of sum (or undefined) and normed: that of x, and, where
// with_branch, the same in bfloat16.  Adds those of weight and bias to their sums,
// and Σ over rows of that of x to branch_bias_sum, where it is defined.
struct AddNormGradient {
  at::Tensor x, branch;
};
struct AddNormSums {
  at::Tensor weight, bias, branch_bias;  // float32 [width]
};
AddNormGradient add_norm_gradient(const at::Tensor& sum_gradient, const at::Tensor& normed_gradient,
                                  const AddNorm& saved, const at::Tensor& weight, bool with_branch,
                                  const AddNormSums& sums);

// scores bfloat16 [rows,classes], labels int64 [rows], −100 for a row that does
// not count: losses float32 [rows] (0 there) and correct int64 [rows].  With a
// gradient the scores become scale × (softmax − one-hot), and zero where a row
// does not count; the padding of their rows as well.
struct RowLosses {
  at::Tensor losses, correct;
};
RowLosses cross_entropy(const at::Tensor& scores, const at::Tensor& labels, double scale, bool with_gradient);

// ----- Embedding -----

// tokens int64 [N,T], tables float32 [any,width] (positions: at least T rows, or
// undefined): their rows' sum, float32 [N,T,width].
at::Tensor embed(const at::Tensor& tokens, const at::Tensor& token_table, const at::Tensor& position_table);

// Adds the gradients [N,T,width] of embed() to the tables', where these are
// defined: a token's in any order, so that equal runs may differ in last bits.
void add_embedding_gradients(const at::Tensor& tokens, const at::Tensor& gradient,
                             const at::Tensor& token_sum, const at::Tensor& position_sum);

// ----- AdamW -----

// Parameters with their state, all float32 and contiguous; copies are bfloat16 or
// undefined, gradients are read at step().
class Adamw {
 public:
  struct Item {
    at::Tensor parameter, first, second, copy;
    double weight_decay = 0;
  };
  struct Step {
    double lr, beta1, beta2, eps;
    std::int64_t number;  // from 1
    double max_norm;      // 0: no clipping
  };

  explicit Adamw(std::vector<Item> items) : items_(std::move(items)) {}

  // What the next update goes by.
  void prepare(const Step& step);

  // Clips and updates, and writes the copies; gradients stay as they are.
  // Returns the norm before clipping: float64, 0-dim, on the device.  Queues the
  // same work every time while the gradients stay where they are, so that it can
  // be recorded (step_graph.h).
  at::Tensor update(const std::vector<at::Tensor>& gradients);

 private:
  std::vector<Item> items_;
  std::vector<const void*> known_;  // where the gradients were when `chunks_` was made
  at::Tensor chunks_, partial_;
  at::Tensor step_;  // AdamwStep, as bytes
};

}  // namespace bulkhead::kernels
