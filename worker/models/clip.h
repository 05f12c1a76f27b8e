// A small CLIP (Radford et al. 2021): a picture and a text each become a unit
// vector of config.width numbers; training makes those that belong together
// alike, and others not.
//
// Pictures: three stages of (3×3 convolution, group norm, ReLU, 2×2 max pooling)
// whose channels double, global average pooling, linear.  Texts: the GPT-2
// transformer of gpt.h, whose state at the end token goes through a layer norm
// and a linear layer.  Parameters: image.conv.0.weight, … image.proj.bias,
// text.wte.weight, … text.proj.weight, logit_scale.  Compute thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "data/facts.h"
#include "models/layer.h"
#include "models/transformer_block.h"
#include "protocol/run_config.h"

namespace bulkhead {

class ImageEncoder : public torch::nn::Module {
 public:
  // The shortest side of a picture: three poolings leave one pixel of it.
  static constexpr std::int64_t kShortestSide = 8;

  ImageEncoder(const ModelConfig& config, std::int64_t channels, const at::Generator& generator,
               at::ScalarType compute_type);
  // float32 [N,C,H,W] to [N,width].
  at::Tensor forward(const at::Tensor& images) const;

 private:
  at::ScalarType compute_type_;
  std::vector<LayerPtr> convolutions_, norms_;
  LayerPtr proj_;
};

class TextEncoder : public torch::nn::Module {
 public:
  TextEncoder(const ModelConfig& config, const DatasetFacts& facts, const at::Generator& generator,
              at::ScalarType compute_type);
  // int64 [N,T], T ≤ context, every row with an end token (check_batch), to
  // [N,width].  What stands behind a row's first end token makes no difference.
  at::Tensor forward(const at::Tensor& input_ids) const;

 private:
  std::int64_t context_, end_token_;
  bool recompute_;
  at::ScalarType compute_type_;
  LayerPtr wte_, wpe_, ln_f_, proj_;
  std::vector<std::shared_ptr<TransformerBlock>> blocks_;
};

class Clip : public torch::nn::Module {
 public:
  // Similarities are multiplied by at most this (and by 1/0.07 at first), as in
  // the paper, §2.5.
  static constexpr double kLargestScale = 100;

  Clip(const ModelConfig& config, const DatasetFacts& facts, std::int64_t seed, at::ScalarType compute_type);

  // Unit vectors, float32 [N,width].
  at::Tensor embed_images(const at::Tensor& images) const;
  at::Tensor embed_texts(const at::Tensor& input_ids) const;

  // Their products, scaled: float32 [N,N], picture i against text j.
  at::Tensor similarity(const at::Tensor& images, const at::Tensor& input_ids) const;

 private:
  at::Tensor scale() const;

  std::shared_ptr<ImageEncoder> image_;
  std::shared_ptr<TextEncoder> text_;
  at::Tensor logit_scale_;  // 0-dim: the logarithm of the scale
};

}  // namespace bulkhead
