// The llama model: names, causality, grouped heads, precision, and the sentences
// for what does not fit.  What it computes is hugging_face_test's.
#include "models/llama.h"

#include <cmath>
#include <map>
#include <utility>

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randint.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/function.h>
#include <torch/nn/module.h>

#include "models/model.h"

namespace bulkhead {
namespace {

const bool kOneThread = (at::set_num_threads(1), true);

ModelConfig tiny() {
  ModelConfig config{.type = "llama", .layers = 2, .heads = 4, .width = 32, .context = 24};
  config.kv_heads = 2;
  return config;
}

DatasetFacts text() {
  DatasetFacts facts;
  facts.vocabulary = 65;
  return facts;
}

Result<Model> made(const ModelConfig& config, at::ScalarType type = at::kFloat) {
  return make_model(config, text(), 1, type);
}

TensorBatch batch() {
  at::manual_seed(3);
  return {{"input_ids", at::randint(0, 65, {4, 24}, at::kLong)},
          {"labels", at::randint(0, 65, {4, 24}, at::kLong)}};
}

std::string failure(const ModelConfig& config) {
  const auto model = made(config);
  return model ? "" : model.error().message;
}

TEST(Llama, NamesAndShapesItsParametersAsHuggingFaceDoes) {
  ModelConfig config = tiny();
  config.qkv_bias = true;
  std::map<std::string, std::vector<std::int64_t>> shapes;
  for (const NamedTensor& parameter : named_parameters(*made(config)))
    shapes[parameter.name] = parameter.value.sizes().vec();
  using Shape = std::vector<std::int64_t>;
  EXPECT_EQ(shapes.size(), 1U + 2 * 12 + 2);
  EXPECT_EQ(shapes.at("model.embed_tokens.weight"), (Shape{65, 32}));
  EXPECT_EQ(shapes.at("model.layers.0.self_attn.q_proj.weight"), (Shape{32, 32}));
  EXPECT_EQ(shapes.at("model.layers.0.self_attn.k_proj.weight"), (Shape{16, 32}));
  EXPECT_EQ(shapes.at("model.layers.1.self_attn.v_proj.bias"), (Shape{16}));
  EXPECT_EQ(shapes.at("model.layers.1.mlp.gate_proj.weight"), (Shape{128, 32}));
  EXPECT_EQ(shapes.at("model.layers.1.mlp.down_proj.weight"), (Shape{32, 128}));
  EXPECT_EQ(shapes.at("model.layers.1.post_attention_layernorm.weight"), (Shape{32}));
  EXPECT_EQ(shapes.at("model.norm.weight"), (Shape{32}));
  EXPECT_EQ(shapes.at("lm_head.weight"), (Shape{65, 32}));
  config.tied = true;
  for (const NamedTensor& parameter : named_parameters(*made(config)))
    EXPECT_NE(parameter.name, "lm_head.weight");
}

TEST(Llama, NeverLooksAhead) {
  const auto model = made(tiny());
  const auto* llama = dynamic_cast<const Llama*>(model->module.get());
  const at::NoGradGuard no_grad;
  at::Tensor ids = tensor_named(batch(), "input_ids").clone();
  const at::Tensor before = llama->logits(ids);
  ids.select(1, 20).fill_(3);
  const at::Tensor after = llama->logits(ids);
  EXPECT_TRUE(at::equal(before.slice(1, 0, 20), after.slice(1, 0, 20)));
  EXPECT_FALSE(at::equal(before.slice(1, 21), after.slice(1, 21)));
}

TEST(Llama, LearnsInEveryPrecision) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const auto model = made(tiny(), type);
    const TensorBatch data = batch();
    double first = 0, last = 0;
    for (int step = 0; step < 30; ++step) {
      const Losses losses = model->forward(data);
      (step == 0 ? first : last) = losses.loss.item<double>();
      losses.loss.backward();
      const at::NoGradGuard no_grad;
      for (auto& parameter : model->module->parameters()) {
        ASSERT_EQ(parameter.grad().scalar_type(), at::kFloat);
        parameter.sub_(parameter.grad(), 0.5);
        parameter.mutable_grad().reset();
      }
    }
    EXPECT_NEAR(first, std::log(65.0), 0.1) << c10::toString(type);
    EXPECT_LT(last, first - 0.5) << c10::toString(type);
  }
}

TEST(Llama, WritesTheSameTextForTheSameSeed) {
  const auto model = made(tiny());
  const auto first = model->sample(40, 7);
  EXPECT_EQ(first.size(), 40U);
  EXPECT_EQ(first, model->sample(40, 7));
  EXPECT_NE(first, model->sample(40, 8));
}

// Backward computes the blocks again: the same bits.
TEST(ActivationCheckpointing, ChangesNoGradient) {
  for (const char* type : {"gpt", "llama"}) {
    for (const at::ScalarType precision : {at::kFloat, at::kBFloat16}) {
      ModelConfig config{.type = type, .layers = 3, .heads = 4, .width = 32, .context = 24};
      const auto plain = made(config, precision);
      config.activation_checkpointing = true;
      const auto saving = made(config, precision);
      for (int pass = 1; pass <= 2; ++pass) {  // the second adds to the first
        plain->forward(batch()).loss.backward();
        saving->forward(batch()).loss.backward();
      }
      const auto wanted = named_parameters(*plain), found = named_parameters(*saving);
      for (std::size_t i = 0; i < wanted.size(); ++i) {
        EXPECT_TRUE(at::equal(found[i].value.grad(), wanted[i].value.grad()))
            << type << " " << wanted[i].name;
      }
    }
  }
}

// Behind a block that is computed again there is one node, not those of its operations.
TEST(ActivationCheckpointing, KeepsWhatGoesInAlone) {
  ModelConfig config = tiny();
  const auto nodes_of = [](const Model& model) {
    std::size_t count = 0;
    const at::Tensor loss = model.forward(batch()).loss;
    std::vector<torch::autograd::Node*> open{loss.grad_fn().get()};
    std::map<torch::autograd::Node*, bool> seen;
    while (!open.empty()) {
      torch::autograd::Node* node = open.back();
      open.pop_back();
      if (node == nullptr || std::exchange(seen[node], true)) continue;
      ++count;
      for (const auto& edge : node->next_edges()) open.push_back(edge.function.get());
    }
    return count;
  };
  const std::size_t all = nodes_of(*made(config));
  config.activation_checkpointing = true;
  EXPECT_LT(nodes_of(*made(config)), all / 3);
}

TEST(Llama, IsRefusedWhereItsNumbersDoNotFit) {
  ModelConfig config = tiny();
  config.kv_heads = 3;
  EXPECT_EQ(failure(config), "model.kv_heads: 3 does not divide model.heads 4");
  config = tiny();
  config.head_dim = 5;
  EXPECT_EQ(failure(config), "model.head_dim: 5 is odd; rotary positions turn pairs");
  config = tiny();
  config.heads = 3;
  EXPECT_EQ(failure(config), "model.heads: 3 does not divide model.width 32; 2 does");
  config = tiny();
  config.rope_scaling = {{"rope_type", "yarn"}, {"factor", 4}};
  EXPECT_EQ(failure(config), "model.rope_scaling.rope_type: \"yarn\" is none of default, linear, llama3");
  config.rope_scaling = {{"rope_type", "llama3"}, {"factor", 8}};
  EXPECT_EQ(failure(config), "model.rope_scaling lacks low_freq_factor");
  config.rope_scaling = {{"rope_type", "linear"}, {"factor", "two"}};
  EXPECT_EQ(failure(config), "model.rope_scaling.factor must be a number greater than 0, not \"two\"");
}

}  // namespace
}  // namespace bulkhead
