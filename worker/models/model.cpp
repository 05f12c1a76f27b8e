#include "models/model.h"

#include <algorithm>
#include <string>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <torch/nn/module.h>

#include "models/classifier.h"
#include "models/clip.h"
#include "models/gpt.h"
#include "models/hugging_face.h"
#include "models/layer.h"
#include "models/llama.h"
#include "torch_error.h"

namespace bulkhead {
namespace {

constexpr double kTemperature = 0.8;

Error misfit(const ModelConfig& config, const char* needs, const DatasetFacts& facts) {
  return {ErrorCode::kMismatch,
          "model.type: " + config.type + " needs " + needs + ", but the data is " + name_of(facts.kind)};
}

Status require_positive(const char* key, std::int64_t value) {
  if (value >= 1) return ok_status();
  return Error{ErrorCode::kMismatch, std::string(key) + ": " + std::to_string(value) + " must be at least 1"};
}

// The largest number of heads, at most `wanted`, that divides the width.
std::int64_t nearest_heads(std::int64_t width, std::int64_t wanted) {
  while (width % wanted != 0) --wanted;
  return wanted;
}

Status check_transformer(const ModelConfig& config) {
  if (auto heads = require_positive("model.heads", config.heads); !heads) return heads;
  if (auto context = require_positive("model.context", config.context); !context) return context;
  if (config.head_dim > 0 || config.width % config.heads == 0) return ok_status();
  return Error{ErrorCode::kMismatch, "model.heads: " + std::to_string(config.heads) +
                                         " does not divide model.width " + std::to_string(config.width) +
                                         "; " + std::to_string(nearest_heads(config.width, config.heads)) +
                                         " does"};
}

template <class Network>
Model language_model(std::shared_ptr<Network> network, const DatasetFacts& facts) {
  const bool masked = facts.kind == DataKind::kRows;
  Model model;
  model.module = network;
  model.forward = [network, masked](const TensorBatch& batch) {
    const at::Tensor& labels = tensor_named(batch, "labels");
    return network->losses(tensor_named(batch, "input_ids"), labels,
                           masked ? counted_labels(labels) : labels.numel());
  };
  model.sample = [network, start = facts.start_token, vocabulary = facts.vocabulary](std::int64_t tokens,
                                                                                     std::uint64_t seed) {
    return network->sample({.start = start,
                            .count = tokens,
                            .vocabulary = vocabulary,
                            .seed = seed,
                            .temperature = kTemperature});
  };
  return model;
}

Result<Model> make_gpt(const hugging_face::Outline& outline, const DatasetFacts& facts, std::int64_t seed,
                       at::ScalarType compute_type) {
  ModelConfig config = outline.config;
  config.context = outline.positions;  // each has an embedding, used or not
  return language_model(std::make_shared<Gpt>(config, outline.vocabulary, seed, compute_type), facts);
}

Result<Model> make_llama(const hugging_face::Outline& outline, const DatasetFacts& facts, std::int64_t seed,
                         at::ScalarType compute_type) {
  const Result<ModelConfig> config = resolve_llama(outline.config);
  if (!config) return config.error();
  const std::string where = config->from.empty()
                                ? "model.rope_scaling"
                                : "model.from: " + config->from + "/config.json: rope_scaling";
  const Result<RopeTables> rope =
      rope_tables(config->head_dim, config->context, config->rope_theta, config->rope_scaling, where);
  if (!rope) return rope.error();
  return language_model(std::make_shared<Llama>(*config, *rope, outline.vocabulary, seed, compute_type),
                        facts);
}

// gpt and llama: of the sizes in the run file, or those of a folder, with its weights.
Result<Model> make_language_model(const ModelConfig& config, const DatasetFacts& facts, std::int64_t seed,
                                  at::ScalarType compute_type) {
  if (facts.kind != DataKind::kText && facts.kind != DataKind::kRows)
    return misfit(config, "text or rows", facts);
  Result<hugging_face::Outline> outline = hugging_face::Outline{config, facts.vocabulary, config.context};
  if (!config.from.empty()) outline = hugging_face::read_outline(config);
  if (!outline) return outline.error();
  if (outline->vocabulary < facts.vocabulary) {
    return Error{ErrorCode::kMismatch, "model.from: " + config.from + " has " +
                                           std::to_string(outline->vocabulary) + " token ids, the data has " +
                                           std::to_string(facts.vocabulary)};
  }
  if (auto fits = check_transformer(outline->config); !fits) return fits.error();
  Result<Model> model = config.type == "gpt" ? make_gpt(*outline, facts, seed, compute_type)
                                             : make_llama(*outline, facts, seed, compute_type);
  if (!model || config.from.empty()) return model;
  if (Status loaded = hugging_face::load_parameters(outline->config, named_parameters(*model)); !loaded)
    return loaded.error();
  return model;
}

template <class Network>
Model classifier(std::shared_ptr<Network> network, const char* input) {
  Model model;
  model.module = network;
  model.forward = [network, input](const TensorBatch& batch) {
    return cross_entropy(network->logits(tensor_named(batch, input)), tensor_named(batch, "labels"));
  };
  return model;
}

Result<Model> make_mlp(const ModelConfig& config, const DatasetFacts& facts, std::int64_t seed,
                       at::ScalarType compute_type) {
  if (facts.kind != DataKind::kImages && facts.kind != DataKind::kFeatures) {
    return misfit(config, "images or features", facts);
  }
  const char* input = facts.kind == DataKind::kImages ? "images" : "features";
  return classifier(std::make_shared<Mlp>(config, facts, seed, compute_type), input);
}

Result<Model> make_cnn(const ModelConfig& config, const DatasetFacts& facts, std::int64_t seed,
                       at::ScalarType compute_type) {
  if (facts.kind != DataKind::kImages) return misfit(config, "images", facts);
  if (facts.height < 4 || facts.width < 4) {
    return Error{ErrorCode::kMismatch, "model.type: cnn needs images of at least 4×4 pixels, but these are " +
                                           std::to_string(facts.height) + "×" + std::to_string(facts.width)};
  }
  return classifier(std::make_shared<Cnn>(config, facts, seed, compute_type), "images");
}

Result<Model> make_clip(const ModelConfig& config, const DatasetFacts& facts, std::int64_t seed,
                        at::ScalarType compute_type) {
  if (facts.kind != DataKind::kCaptions) return misfit(config, "captions", facts);
  if (auto fits = check_transformer(config); !fits) return fits.error();
  if (std::min(facts.height, facts.width) < ImageEncoder::kShortestSide) {
    return Error{ErrorCode::kMismatch, "data.image_size: " + std::to_string(facts.height) +
                                           " is too small for model.type clip, which needs at least " +
                                           std::to_string(ImageEncoder::kShortestSide)};
  }
  auto clip = std::make_shared<Clip>(config, facts, seed, compute_type);
  Model model;
  model.module = clip;
  model.forward = [clip](const TensorBatch& batch) {
    return contrastive(clip->similarity(tensor_named(batch, "images"), tensor_named(batch, "input_ids")));
  };
  return model;
}

Result<Model> make_checked(const ModelConfig& config, const DatasetFacts& facts, std::int64_t seed,
                           at::ScalarType compute_type) {
  if (auto width = require_positive("model.width", config.width); !width) return width.error();
  if (auto layers = require_positive("model.layers", config.layers); !layers) return layers.error();
  if (config.type == "gpt" || config.type == "llama")
    return make_language_model(config, facts, seed, compute_type);
  if (config.type == "mlp") return make_mlp(config, facts, seed, compute_type);
  if (config.type == "cnn") return make_cnn(config, facts, seed, compute_type);
  if (config.type == "clip") return make_clip(config, facts, seed, compute_type);
  return Error{ErrorCode::kMismatch,
               "model.type: '" + config.type + "' is none of gpt, llama, mlp, cnn, clip"};
}

// With the names they have in the module.
std::vector<std::pair<std::string, std::shared_ptr<Layer>>> module_layers(const torch::nn::Module& module) {
  std::vector<std::pair<std::string, std::shared_ptr<Layer>>> layers;
  for (const auto& item : module.named_modules(/*name_prefix=*/"", /*include_self=*/false)) {
    if (auto layer = std::dynamic_pointer_cast<Layer>(item.value())) layers.emplace_back(item.key(), layer);
  }
  return layers;
}

}  // namespace

std::vector<NamedTensor> make_working_copies(const Model& model, at::ScalarType type) {
  constexpr std::int64_t kApart = 64;  // each begins on a multiple of 128 bytes
  const auto parameters = module_layers(*model.module);
  std::int64_t total = 0;
  for (const auto& [name, layer] : parameters) {
    for (const at::Tensor* parameter : {&layer->weight, &layer->bias}) {
      if (parameter->defined()) total += (parameter->numel() + kApart - 1) / kApart * kApart;
    }
  }
  std::vector<NamedTensor> copies;
  if (total == 0) return copies;
  const at::NoGradGuard no_grad;
  const at::Tensor all = at::zeros({total}, parameters[0].second->weight.options().dtype(type));
  std::int64_t at = 0;
  const auto copy_of = [&](const std::string& name, const at::Tensor& parameter) {
    at::Tensor copy = all.narrow(0, at, parameter.numel()).view(parameter.sizes());
    at += (parameter.numel() + kApart - 1) / kApart * kApart;
    copies.push_back({name, copy.copy_(parameter)});
    return copy;
  };
  for (const auto& [name, layer] : parameters) {
    layer->working_weight = copy_of(name + ".weight", layer->weight);
    if (layer->bias.defined()) layer->working_bias = copy_of(name + ".bias", layer->bias);
  }
  return copies;
}

std::vector<NamedTensor> named_parameters(const Model& model) {
  std::vector<NamedTensor> parameters;
  for (const auto& item : model.module->named_parameters()) parameters.push_back({item.key(), item.value()});
  return parameters;
}

Result<Model> make_model(const ModelConfig& config, const DatasetFacts& facts, std::int64_t seed,
                         at::ScalarType compute_type) {
  CHECK(compute_type == at::kFloat || compute_type == at::kBFloat16 || compute_type == at::kHalf);
  // A model larger than memory is the world's failure, which torch throws.
  return catching("model: building " + config.type, ErrorCode::kFailed,
                  [&] { return make_checked(config, facts, seed, compute_type); });
}

}  // namespace bulkhead
