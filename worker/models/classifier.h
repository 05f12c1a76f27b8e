// The two models that name a class: mlp (images flattened, or features) and
// cnn (images).
//
// Both are functions to class scores; the loss is model.cpp's.  Compute thread
// only.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "data/facts.h"
#include "models/layer.h"
#include "protocol/run_config.h"

namespace bulkhead {

// config.layers hidden layers of config.width with ReLU, then a linear head.
// Parameters: layers.0.weight, … head.bias.
class Mlp : public torch::nn::Module {
 public:
  Mlp(const ModelConfig& config, const DatasetFacts& facts, std::int64_t seed, at::ScalarType compute_type);
  // float32 [N, …], flattened to the model's inputs, to scores [N,classes].
  at::Tensor logits(const at::Tensor& inputs) const;

 private:
  at::ScalarType compute_type_;
  std::vector<LayerPtr> layers_;
  LayerPtr head_;
};

// Two stages of (3×3 convolution, ReLU) twice and 2×2 max pooling, with
// config.width and twice config.width channels, then a linear head.  Parameters:
// conv.0.weight, … conv.3.bias, head.weight, head.bias.
class Cnn : public torch::nn::Module {
 public:
  // Images must be at least 4×4 (make_model checks).
  Cnn(const ModelConfig& config, const DatasetFacts& facts, std::int64_t seed, at::ScalarType compute_type);
  // float32 [N,C,H,W] to scores [N,classes].
  at::Tensor logits(const at::Tensor& images) const;

 private:
  at::ScalarType compute_type_;
  std::vector<LayerPtr> convolutions_;
  LayerPtr head_;
};

}  // namespace bulkhead
