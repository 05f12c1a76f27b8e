// Our own kernels (cuda/launch.h) on torch tensors and torch's current stream.
#include <algorithm>
#include <cstring>
#include <utility>

#include <ATen/cuda/CUDAContext.h>
#include <ATen/cuda/Exceptions.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "ops/cuda/launch.h"
#include "ops/kernels.h"

namespace bulkhead::kernels {
namespace {

constexpr std::uintptr_t kAlignment = 16;

bool is_aligned(const void* address) { return reinterpret_cast<std::uintptr_t>(address) % kAlignment == 0; }

at::Tensor floats(std::int64_t count, const at::Tensor& like) {
  return at::empty({count}, like.options().dtype(at::kFloat));
}

float* optional_floats(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.mutable_data_ptr<float>() : nullptr;
}

}  // namespace

bool has_gpu(const at::Tensor& tensor) {
  return tensor.is_cuda() && at::cuda::getDeviceProperties(tensor.device().index())->major >= 8;
}

bool serve(const at::Tensor& matrix) {
  if (!has_gpu(matrix) || matrix.dim() < 1 || matrix.numel() == 0) return false;
  const auto row = static_cast<std::uintptr_t>(matrix.size(-1)) * matrix.element_size();
  const auto step =
      matrix.dim() < 2 ? row : static_cast<std::uintptr_t>(matrix.stride(-2)) * matrix.element_size();
  return matrix.stride(-1) == 1 && row % kAlignment == 0 && step % kAlignment == 0 &&
         is_aligned(matrix.const_data_ptr());
}

void add_bias_gradient(const at::Tensor& sum, const at::Tensor& gradient) {
  const std::int64_t rows = gradient.size(0), columns = gradient.size(1);
  const at::Tensor partial = floats(cuda::row_sum_partials(rows, columns), gradient);
  C10_CUDA_CHECK(cuda::add_row_sum(gradient.const_data_ptr(), rows, columns,
                                   partial.mutable_data_ptr<float>(), sum.mutable_data_ptr<float>(),
                                   at::cuda::getCurrentCUDAStream()));
}

void gelu_gradient(const at::Tensor& gradient, const at::Tensor& inner, const at::Tensor& bias_sum) {
  const std::int64_t rows = gradient.size(0), columns = gradient.size(1);
  const at::Tensor partial = floats(cuda::row_sum_partials(rows, columns), gradient);
  C10_CUDA_CHECK(cuda::gelu_gradient(gradient.mutable_data_ptr(), inner.const_data_ptr(), rows, columns,
                                     partial.mutable_data_ptr<float>(), optional_floats(bias_sum),
                                     at::cuda::getCurrentCUDAStream()));
}

at::Tensor pack_three(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c,
                      const at::Tensor& bias_sum) {
  const std::int64_t rows = a.size(0), width = a.size(1);
  const at::Tensor packed = at::empty({rows, 3 * width}, a.options());
  const at::Tensor partial = floats(cuda::row_sum_partials(rows, 3 * width), a);
  const cuda::Packing work{
      {a.const_data_ptr(), b.const_data_ptr(), c.const_data_ptr()}, packed.mutable_data_ptr(), rows, width};
  C10_CUDA_CHECK(cuda::pack_three(work, partial.mutable_data_ptr<float>(), optional_floats(bias_sum),
                                  at::cuda::getCurrentCUDAStream()));
  return packed;
}

AddNorm add_norm(const at::Tensor& x, const at::Tensor& branch, const at::Tensor& weight,
                 const at::Tensor& bias) {
  const std::int64_t rows = x.size(0), width = x.size(1);
  TORCH_CHECK(width <= cuda::kWidestNorm);
  AddNorm made{branch.defined() ? at::empty_like(x) : x,
               at::empty({rows, width}, x.options().dtype(at::kBFloat16)), floats(rows, x), floats(rows, x)};
  cuda::AddNorm work{};
  work.x = x.const_data_ptr<float>();
  work.branch = branch.defined() ? branch.const_data_ptr() : nullptr;
  work.weight = weight.const_data_ptr<float>();
  work.bias = bias.const_data_ptr<float>();
  work.sum = branch.defined() ? made.sum.mutable_data_ptr<float>() : nullptr;
  work.normed = made.normed.mutable_data_ptr();
  work.mean = made.mean.mutable_data_ptr<float>();
  work.rstd = made.rstd.mutable_data_ptr<float>();
  work.rows = rows;
  work.width = width;
  C10_CUDA_CHECK(cuda::add_norm(work, at::cuda::getCurrentCUDAStream()));
  return made;
}

AddNormGradient add_norm_gradient(const at::Tensor& sum_gradient, const at::Tensor& normed_gradient,
                                  const AddNorm& saved, const at::Tensor& weight, bool with_branch,
                                  const AddNormSums& sums) {
  const std::int64_t width = saved.sum.size(1);
  AddNormGradient made{at::empty_like(saved.sum), {}};
  if (with_branch) made.branch = at::empty_like(normed_gradient);
  const at::Tensor partial = floats(cuda::add_norm_partials(width), saved.sum);
  cuda::AddNormGradient work{};
  work.normed = normed_gradient.const_data_ptr();
  work.sum = optional_floats(sum_gradient);
  work.saved_sum = saved.sum.const_data_ptr<float>();
  work.mean = saved.mean.const_data_ptr<float>();
  work.rstd = saved.rstd.const_data_ptr<float>();
  work.weight = weight.const_data_ptr<float>();
  work.x = made.x.mutable_data_ptr<float>();
  work.branch = with_branch ? made.branch.mutable_data_ptr() : nullptr;
  work.partial = partial.mutable_data_ptr<float>();
  work.weight_gradient = sums.weight.mutable_data_ptr<float>();
  work.bias_gradient = sums.bias.mutable_data_ptr<float>();
  work.branch_bias_gradient = optional_floats(sums.branch_bias);
  work.rows = saved.sum.size(0);
  work.width = width;
  C10_CUDA_CHECK(cuda::add_norm_gradient(work, at::cuda::getCurrentCUDAStream()));
  return made;
}

RowLosses cross_entropy(const at::Tensor& scores, const at::Tensor& labels, double scale,
                        bool with_gradient) {
  const std::int64_t rows = scores.size(0);
  RowLosses made{floats(rows, scores), at::empty({rows}, labels.options())};
  cuda::CrossEntropy work{};
  work.scores = scores.mutable_data_ptr();
  work.labels = labels.const_data_ptr<std::int64_t>();
  work.losses = made.losses.mutable_data_ptr<float>();
  work.correct = made.correct.mutable_data_ptr<std::int64_t>();
  work.rows = rows;
  work.classes = scores.size(1);
  work.stride = scores.stride(0);
  work.scale = static_cast<float>(scale);
  work.with_gradient = with_gradient;
  C10_CUDA_CHECK(cuda::cross_entropy(work, at::cuda::getCurrentCUDAStream()));
  return made;
}

at::Tensor embed(const at::Tensor& tokens, const at::Tensor& token_table, const at::Tensor& position_table) {
  const at::Tensor rows =
      at::empty({tokens.size(0), tokens.size(1), token_table.size(1)}, token_table.options());
  cuda::Embedding work{};
  work.tokens = tokens.const_data_ptr<std::int64_t>();
  work.token_table = token_table.const_data_ptr<float>();
  if (position_table.defined()) work.position_table = position_table.const_data_ptr<float>();
  work.rows = rows.mutable_data_ptr<float>();
  work.sequences = tokens.size(0);
  work.length = tokens.size(1);
  work.width = token_table.size(1);
  C10_CUDA_CHECK(cuda::embedding(work, at::cuda::getCurrentCUDAStream()));
  return rows;
}

void add_embedding_gradients(const at::Tensor& tokens, const at::Tensor& gradient,
                             const at::Tensor& token_sum, const at::Tensor& position_sum) {
  cuda::EmbeddingGradient work{};
  work.tokens = tokens.const_data_ptr<std::int64_t>();
  work.rows = gradient.const_data_ptr<float>();
  work.token_gradient = optional_floats(token_sum);
  work.position_gradient = optional_floats(position_sum);
  work.sequences = tokens.size(0);
  work.length = tokens.size(1);
  work.width = gradient.size(2);
  C10_CUDA_CHECK(cuda::embedding_gradient(work, at::cuda::getCurrentCUDAStream()));
}

// ----- AdamW -----

namespace {

// The same bytes on the device; queued, since so few are taken over at once.
template <class T>
void write_bytes(at::Tensor& to, const T* from, std::size_t count, at::Device device) {
  const auto bytes = static_cast<std::int64_t>(count * sizeof(T));
  const at::Tensor host = at::empty({bytes}, at::kByte);
  std::memcpy(host.mutable_data_ptr(), from, static_cast<std::size_t>(bytes));
  if (to.defined() && to.numel() == bytes) {
    to.copy_(host, /*non_blocking=*/true);
  } else {
    to = host.to(device);
  }
}

}  // namespace

void Adamw::prepare(const Step& step) {
  cuda::AdamwStep values{};
  values.lr = static_cast<float>(step.lr);
  values.beta1 = static_cast<float>(step.beta1);
  values.beta2 = static_cast<float>(step.beta2);
  values.eps = static_cast<float>(step.eps);
  const auto number = static_cast<double>(step.number);
  values.correction1 = static_cast<float>(1 - std::pow(step.beta1, number));
  values.root_correction2 = static_cast<float>(std::sqrt(1 - std::pow(step.beta2, number)));
  values.max_norm = static_cast<float>(step.max_norm);
  write_bytes(step_, &values, 1, items_[0].parameter.device());
}

at::Tensor Adamw::update(const std::vector<at::Tensor>& gradients) {
  std::vector<const void*> places;
  for (const at::Tensor& gradient : gradients) places.push_back(gradient.const_data_ptr());
  if (places != known_) {
    std::vector<cuda::AdamwChunk> chunks;
    for (std::size_t i = 0; i < items_.size(); ++i) {
      const Item& item = items_[i];
      TORCH_CHECK(gradients[i].is_contiguous() && gradients[i].scalar_type() == at::kFloat);
      for (std::int64_t at = 0; at < item.parameter.numel(); at += cuda::kChunk) {
        cuda::AdamwChunk chunk{};
        chunk.parameter = item.parameter.mutable_data_ptr<float>() + at;
        chunk.gradient = gradients[i].const_data_ptr<float>() + at;
        chunk.first = item.first.mutable_data_ptr<float>() + at;
        chunk.second = item.second.mutable_data_ptr<float>() + at;
        if (item.copy.defined()) chunk.copy = item.copy.mutable_data_ptr<at::BFloat16>() + at;
        chunk.count = std::min(cuda::kChunk, item.parameter.numel() - at);
        chunk.weight_decay = static_cast<float>(item.weight_decay);
        chunk.aligned = is_aligned(chunk.parameter) && is_aligned(chunk.gradient) &&
                        is_aligned(chunk.first) && is_aligned(chunk.second) && is_aligned(chunk.copy);
        chunks.push_back(chunk);
      }
    }
    write_bytes(chunks_, chunks.data(), chunks.size(), items_[0].parameter.device());
    partial_ = floats(static_cast<std::int64_t>(chunks.size()), items_[0].parameter);
    known_ = std::move(places);
  }
  const auto* chunks = static_cast<const cuda::AdamwChunk*>(chunks_.const_data_ptr());
  const at::Tensor norm = at::empty({}, partial_.options().dtype(at::kDouble));
  const auto stream = at::cuda::getCurrentCUDAStream();
  C10_CUDA_CHECK(cuda::gradient_norm(chunks, partial_.numel(), partial_.mutable_data_ptr<float>(),
                                     norm.mutable_data_ptr<double>(), stream));
  C10_CUDA_CHECK(cuda::adamw(chunks, partial_.numel(), norm.const_data_ptr<double>(),
                             static_cast<const cuda::AdamwStep*>(step_.const_data_ptr()), stream));
  return norm;
}

}  // namespace bulkhead::kernels
