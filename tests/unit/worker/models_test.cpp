// All models: names, seeds, causality, learning on real data, precision,
// and the sentences for what does not fit.
#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>
#include <torch/nn/module.h>

#include "data/dataset.h"
#include "models/gpt.h"
#include "models/model.h"

namespace bulkhead {
namespace {

// ctest runs several of these at once; more threads would only wait for each other.
const bool kOneThread = (at::set_num_threads(1), true);

const ModelConfig kTinyGpt{.type = "gpt", .layers = 2, .heads = 2, .width = 32, .context = 32};
const ModelConfig kTinyMlp{.type = "mlp", .layers = 2, .heads = 1, .width = 64, .context = 1};
const ModelConfig kTinyCnn{.type = "cnn", .layers = 1, .heads = 1, .width = 8, .context = 1};

const ModelConfig kTinyClip{.type = "clip", .layers = 2, .heads = 2, .width = 32, .context = 32};

Dataset load(const std::string& type, const std::string& path, std::int64_t image_size = 16) {
  DataConfig config;
  config.image_size = image_size;
  config.type = type;
  config.path = BULKHEAD_TEST_DATA "/" + path;
  config.target = "digit";
  auto dataset = load_dataset(config, kTinyGpt.context);
  CHECK(dataset.ok(), dataset.error().message);
  return std::move(*dataset);
}

const Dataset& shakespeare() {
  static const Dataset dataset = load("text", "shakespeare/input.txt");
  return dataset;
}
const Dataset& mnist() {
  static const Dataset dataset = load("mnist", "mnist");
  return dataset;
}
const Dataset& digits() {
  static const Dataset dataset = load("csv", "csv/digits.csv");
  return dataset;
}

const Dataset& pictures() {
  static const Dataset dataset = load("captions", "captions");
  return dataset;
}

Model make(const ModelConfig& config, const Dataset& data, std::int64_t seed = 1,
           at::ScalarType type = at::kFloat) {
  auto model = make_model(config, data.facts(), seed, type);
  CHECK(model.ok(), model.error().message);
  return std::move(*model);
}

std::string failure(const ModelConfig& config, const Dataset& data) {
  const auto model = make_model(config, data.facts(), 1, at::kFloat);
  return model ? "" : model.error().message;
}

TensorBatch batch_of(const Dataset& data, std::int64_t first, std::int64_t count) {
  std::vector<std::int64_t> indices(static_cast<std::size_t>(std::min(count, data.train_size())));
  std::iota(indices.begin(), indices.end(), first);
  for (auto& index : indices) index %= data.train_size();
  return data.gather(Split::kTrain, indices);
}

// Plain gradient descent, enough to see that a model learns; returns the mean
// loss of the last ten steps.
float descend(const Model& model, const Dataset& data, int steps, double lr) {
  float sum = 0;
  for (int step = 0; step < steps; ++step) {
    const Losses losses = model.forward(batch_of(data, 64 * step, 64));
    if (step >= steps - 10) sum += losses.loss.item<float>();
    losses.loss.backward();
    const at::NoGradGuard no_grad;
    for (auto& parameter : model.module->parameters()) {
      parameter.sub_(parameter.grad(), lr);
      parameter.mutable_grad().reset();
    }
  }
  return sum / 10;
}

void expect_equal_parameters(const Model& a, const Model& b, bool equal) {
  const auto left = a.module->named_parameters();
  const auto right = b.module->named_parameters();
  ASSERT_EQ(left.keys(), right.keys());
  bool all_equal = true;
  for (const auto& item : left) all_equal = all_equal && at::equal(item.value(), right[item.key()]);
  EXPECT_EQ(all_equal, equal);
}

TEST(Gpt, NamesAndShapesItsParametersAsGpt2Does) {
  const Model model = make(kTinyGpt, shakespeare());
  std::map<std::string, std::vector<std::int64_t>> shapes;
  for (const auto& item : model.module->named_parameters()) shapes[item.key()] = item.value().sizes().vec();
  EXPECT_EQ(shapes.size(), 2U + 2 * 12 + 2);
  EXPECT_EQ(shapes.at("wte.weight"), (std::vector<std::int64_t>{65, 32}));
  EXPECT_EQ(shapes.at("wpe.weight"), (std::vector<std::int64_t>{32, 32}));
  EXPECT_EQ(shapes.at("h.0.ln_1.weight"), (std::vector<std::int64_t>{32}));
  EXPECT_EQ(shapes.at("h.0.attn.c_attn.weight"), (std::vector<std::int64_t>{96, 32}));
  EXPECT_EQ(shapes.at("h.1.attn.c_proj.bias"), (std::vector<std::int64_t>{32}));
  EXPECT_EQ(shapes.at("h.1.mlp.c_fc.weight"), (std::vector<std::int64_t>{128, 32}));
  EXPECT_EQ(shapes.at("h.1.mlp.c_proj.weight"), (std::vector<std::int64_t>{32, 128}));
  EXPECT_EQ(shapes.at("ln_f.bias"), (std::vector<std::int64_t>{32}));
}

TEST(Gpt, HasAsManyParametersAsGpt2Small) {
  DatasetFacts facts;
  facts.vocabulary = 50257;
  const auto model = make_model({.type = "gpt", .layers = 12, .heads = 12, .width = 768, .context = 1024},
                                facts, 1, at::kFloat);
  ASSERT_TRUE(model);
  std::int64_t count = 0;
  for (const auto& parameter : model->module->parameters()) count += parameter.numel();
  EXPECT_EQ(count, 124439808);
}

TEST(Gpt, BeginsWithTheLossOfAUniformGuess) {
  const Model model = make(kTinyGpt, shakespeare());
  const Losses losses = model.forward(batch_of(shakespeare(), 0, 16));
  EXPECT_NEAR(losses.loss.item<double>(), std::log(65.0), 0.1);
  EXPECT_EQ(losses.count, 16 * 32);
  EXPECT_GE(losses.correct.item<std::int64_t>(), 0);
  EXPECT_LE(losses.correct.item<std::int64_t>(), losses.count);
  EXPECT_EQ(losses.correct.scalar_type(), at::kLong);
}

TEST(Gpt, LearnsFromShakespeare) {
  const Model model = make(kTinyGpt, shakespeare());
  EXPECT_LT(descend(model, shakespeare(), 60, 0.5), 3.3);
}

TEST(Gpt, NeverLooksAhead) {
  Gpt gpt(kTinyGpt, 65, 1, at::kFloat);
  const at::NoGradGuard no_grad;
  at::Tensor ids = tensor_named(batch_of(shakespeare(), 0, 2), "input_ids");
  const at::Tensor before = gpt.logits(ids);
  ids.select(1, 20).fill_(3);
  const at::Tensor after = gpt.logits(ids);
  EXPECT_TRUE(at::equal(before.slice(1, 0, 20), after.slice(1, 0, 20)));
  EXPECT_FALSE(at::equal(before.slice(1, 21), after.slice(1, 21)));
}

TEST(Gpt, WritesTheSameTextForTheSameSeedAndKeepsItsMode) {
  const Model model = make(kTinyGpt, shakespeare());
  const auto first = model.sample(50, 7);  // past the context of 32
  EXPECT_EQ(first.size(), 50U);
  EXPECT_EQ(first, model.sample(50, 7));
  EXPECT_NE(first, model.sample(50, 8));
  for (const std::int64_t token : first) EXPECT_TRUE(token >= 0 && token < 65);
  EXPECT_TRUE(model.module->is_training());
  EXPECT_FALSE(model.module->parameters().front().grad().defined());
}

TEST(Models, AreMadeFromTheSeedAlone) {
  for (const auto& [config, data] : {std::pair{kTinyGpt, &shakespeare()},
                                     {kTinyMlp, &digits()},
                                     {kTinyCnn, &mnist()},
                                     {kTinyClip, &pictures()}}) {
    expect_equal_parameters(make(config, *data, 3), make(config, *data, 3), true);
    expect_equal_parameters(make(config, *data, 3), make(config, *data, 4), false);
  }
}

TEST(Models, TrainToTheSameBitsTwice) {
  for (const auto& [config, data] :
       {std::pair{kTinyGpt, &shakespeare()}, {kTinyCnn, &mnist()}, {kTinyClip, &pictures()}}) {
    const Model first = make(config, *data);
    const Model second = make(config, *data);
    descend(first, *data, 10, 0.1);
    descend(second, *data, 10, 0.1);
    expect_equal_parameters(first, second, true);
  }
}

TEST(Models, GiveEveryParameterAGradient) {
  for (const auto& [config, data] : {std::pair{kTinyGpt, &shakespeare()},
                                     {kTinyMlp, &digits()},
                                     {kTinyCnn, &mnist()},
                                     {kTinyClip, &pictures()}}) {
    const Model model = make(config, *data);
    model.forward(batch_of(*data, 0, 8)).loss.backward();
    for (const auto& item : model.module->named_parameters()) {
      ASSERT_TRUE(item.value().grad().defined()) << config.type << " " << item.key();
      EXPECT_GT(item.value().grad().abs().max().item<float>(), 0) << config.type << " " << item.key();
      EXPECT_EQ(item.value().scalar_type(), at::kFloat);
    }
  }
}

TEST(Models, StayCloseToFloat32InBfloat16) {
  for (const auto& [config, data] : {std::pair{kTinyGpt, &shakespeare()},
                                     {kTinyMlp, &digits()},
                                     {kTinyCnn, &mnist()},
                                     {kTinyClip, &pictures()}}) {
    const Model exact = make(config, *data);
    const Model mixed = make(config, *data, 1, at::kBFloat16);
    const auto batch = batch_of(*data, 0, 16);
    const Losses a = exact.forward(batch);
    const Losses b = mixed.forward(batch);
    EXPECT_EQ(b.loss.scalar_type(), at::kFloat) << config.type;
    EXPECT_NEAR(a.loss.item<double>(), b.loss.item<double>(), 0.02) << config.type;
    EXPECT_NE(a.loss.item<double>(), b.loss.item<double>()) << config.type;
    b.loss.backward();
    EXPECT_EQ(mixed.module->parameters().front().grad().scalar_type(), at::kFloat) << config.type;
  }
}

TEST(Mlp, LearnsDigitsFromTheirInkAndFromTheirPixels) {
  const Model features = make(kTinyMlp, digits());
  EXPECT_LT(descend(features, digits(), 28, 0.5), 1.5);
  const Model pixels = make(kTinyMlp, mnist());
  EXPECT_LT(descend(pixels, mnist(), 60, 0.2), 0.6);
}

TEST(Cnn, LearnsDigits) {
  const Model model = make(kTinyCnn, mnist());
  EXPECT_EQ(model.sample, nullptr);
  EXPECT_LT(descend(model, mnist(), 60, 0.05), 0.6);
}

TEST(Models, AreRefusedWhereTheyDoNotFitTheData) {
  EXPECT_EQ(failure(kTinyGpt, mnist()), "model.type: gpt needs text or rows, but the data is images");
  EXPECT_EQ(failure(kTinyCnn, digits()), "model.type: cnn needs images, but the data is features");
  EXPECT_EQ(failure(kTinyClip, mnist()), "model.type: clip needs captions, but the data is images");
  EXPECT_EQ(failure(kTinyMlp, pictures()),
            "model.type: mlp needs images or features, but the data is captions");
  EXPECT_EQ(failure(kTinyMlp, shakespeare()),
            "model.type: mlp needs images or features, but the data is text");
}

TEST(Models, AreRefusedWhereTheirNumbersDoNotFit) {
  auto config = kTinyGpt;
  config.heads = 5;
  EXPECT_EQ(failure(config, shakespeare()), "model.heads: 5 does not divide model.width 32; 4 does");
  config.heads = 0;
  EXPECT_EQ(failure(config, shakespeare()), "model.heads: 0 must be at least 1");
  config = kTinyClip;
  config.heads = 3;
  EXPECT_EQ(failure(config, pictures()), "model.heads: 3 does not divide model.width 32; 2 does");
  EXPECT_EQ(failure(kTinyClip, load("captions", "captions", 7)),
            "data.image_size: 7 is too small for model.type clip, which needs at least 8");
  config = kTinyGpt;
  config.width = std::int64_t{1} << 40;
  EXPECT_NE(failure(config, shakespeare()).find("model: building gpt failed"), std::string::npos);
  config.type = "gtp";
  EXPECT_EQ(failure(config, shakespeare()), "model.type: 'gtp' is none of gpt, llama, mlp, cnn, clip");
}

TEST(MaskedLoss, IsTheMeanOverTheLabelsThatAreLearned) {
  const at::Tensor scores = at::arange(12, at::kFloat).view({4, 3}) / 10;
  const at::Tensor some = at::tensor({2, -100, 0, -100}, at::kLong);
  const at::Tensor rows = at::tensor({0, 2}, at::kLong);
  const Losses masked = cross_entropy(scores, some);
  const Losses only = cross_entropy(scores.index_select(0, rows), some.index_select(0, rows));
  EXPECT_EQ(counted_labels(some), 2);
  EXPECT_EQ(masked.correct.item<std::int64_t>(), 1);
  EXPECT_TRUE(at::allclose(masked.loss, only.loss));
}

}  // namespace
}  // namespace bulkhead
