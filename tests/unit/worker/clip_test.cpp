// The clip model: its loss by hand, what its two towers see, and learning.
#include "models/clip.h"

#include <cmath>
#include <numeric>

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <torch/nn/module.h>

#include "data/dataset.h"
#include "models/losses.h"
#include "models/model.h"
#include "optim/optimizer.h"

namespace bulkhead {
namespace {

// ctest runs several of these at once; more threads would only wait for each other.
const bool kOneThread = (at::set_num_threads(1), true);

const ModelConfig kTinyClip{.type = "clip", .layers = 2, .heads = 4, .width = 32, .context = 40};

const Dataset& pictures() {
  static const Dataset dataset = [] {
    DataConfig config;
    config.type = "captions";
    config.path = BULKHEAD_TEST_DATA "/captions";
    config.image_size = 16;
    config.validation_fraction = 0;
    auto loaded = load_dataset(config, kTinyClip.context);
    CHECK(loaded.ok(), loaded.error().message);
    return std::move(*loaded);
  }();
  return dataset;
}

TensorBatch batch_of(std::int64_t first, std::int64_t count) {
  std::vector<std::int64_t> indices(static_cast<std::size_t>(count));
  std::iota(indices.begin(), indices.end(), first);
  return pictures().gather(Split::kTrain, indices);
}

Clip tiny(at::ScalarType type = at::kFloat) { return Clip(kTinyClip, pictures().facts(), 1, type); }

at::Tensor scale_of(Clip& clip) { return clip.named_parameters()["logit_scale"]; }

TEST(Contrastive, IsKnownForPairsThatAreAlikeAndElseAtRightAngles) {
  // softmax of (s, 0, 0, 0) at its s: −ln(e^s / (e^s + 3)).
  for (const double s : {0.0, 1.0, 14.2857}) {
    const Losses losses = contrastive(at::eye(4, at::kFloat) * s);
    EXPECT_NEAR(losses.loss.item<double>(), std::log(1 + 3 * std::exp(-s)), 1e-6) << s;
    EXPECT_EQ(losses.loss.dim(), 0);
    EXPECT_EQ(losses.count, 4);
    if (s > 0) {
      EXPECT_EQ(losses.correct.item<std::int64_t>(), 4);
    }
  }
}

TEST(Contrastive, IsTheMeanOfBothDirections) {
  // Every picture prefers its own text; text 0 prefers picture 1.
  const at::Tensor similarity = at::tensor({2.0F, 0.0F, 5.0F, 7.0F}).view({2, 2});
  const double pictures_to_texts = std::log(1 + std::exp(-2.0));
  const double texts_to_pictures = (std::log(1 + std::exp(3.0)) + std::log(1 + std::exp(-7.0))) / 2;
  const Losses losses = contrastive(similarity);
  EXPECT_NEAR(losses.loss.item<double>(), (pictures_to_texts + texts_to_pictures) / 2, 1e-6);
  EXPECT_EQ(losses.correct.item<std::int64_t>(), 2);
  EXPECT_EQ(losses.correct.scalar_type(), at::kLong);
  EXPECT_EQ(contrastive(similarity.t()).correct.item<std::int64_t>(), 1);
}

TEST(Contrastive, IsNothingForOnePairAlone) {
  const Losses losses = contrastive(at::tensor({3.0F}).view({1, 1}));
  EXPECT_EQ(losses.loss.item<double>(), 0);
  EXPECT_EQ(losses.correct.item<std::int64_t>(), 1);
}

TEST(Clip, GivesUnitVectorsAndScaledProducts) {
  const Clip clip = tiny();
  const at::NoGradGuard no_grad;
  const auto batch = batch_of(0, 5);
  const at::Tensor images = clip.embed_images(tensor_named(batch, "images"));
  const at::Tensor texts = clip.embed_texts(tensor_named(batch, "input_ids"));
  EXPECT_EQ(images.sizes(), (at::IntArrayRef{5, 32}));
  EXPECT_EQ(texts.sizes(), (at::IntArrayRef{5, 32}));
  EXPECT_NEAR(images.norm(2, {1}).sub(1).abs().max().item<float>(), 0, 1e-5F);
  EXPECT_NEAR(texts.norm(2, {1}).sub(1).abs().max().item<float>(), 0, 1e-5F);
  const at::Tensor similarity =
      clip.similarity(tensor_named(batch, "images"), tensor_named(batch, "input_ids"));
  EXPECT_NEAR(similarity[1][3].item<double>(), images[1].mul(texts[3]).sum().item<double>() / 0.07, 1e-4);
}

TEST(Clip, SeesNothingBehindTheEndOfACaption) {
  const Clip clip = tiny();
  const at::NoGradGuard no_grad;
  const auto facts = pictures().facts();
  at::Tensor ids = at::zeros({1, 40}, at::kLong);
  ids[0][0] = facts.start_token;
  ids[0].slice(0, 1, 6).fill_(3);
  ids[0][6] = facts.end_token;
  ids[0].slice(0, 7).fill_(facts.padding_token);
  const at::Tensor before = clip.embed_texts(ids);
  ids[0].slice(0, 7).fill_(2);
  ids[0][20] = facts.end_token;
  EXPECT_TRUE(at::equal(before, clip.embed_texts(ids)));
  ids[0][5] = 4;
  EXPECT_FALSE(at::equal(before, clip.embed_texts(ids)));
}

TEST(Clip, SeesEveryPictureByItself) {
  const Clip clip = tiny();
  const at::NoGradGuard no_grad;
  at::Tensor images = tensor_named(batch_of(0, 3), "images").clone();
  const at::Tensor before = clip.embed_images(images);
  images[2].fill_(0.5);
  const at::Tensor after = clip.embed_images(images);
  EXPECT_TRUE(at::equal(before.slice(0, 0, 2), after.slice(0, 0, 2)));
  EXPECT_FALSE(at::equal(before[2], after[2]));
}

TEST(Clip, HoldsItsScaleAtAHundredAndLetsItComeBack) {
  Clip clip = tiny();
  const auto batch = batch_of(0, 4);
  const auto similarity = [&] {
    return clip.similarity(tensor_named(batch, "images"), tensor_named(batch, "input_ids"));
  };
  const at::Tensor scale = scale_of(clip);
  {
    const at::NoGradGuard no_grad;
    scale.fill_(50);
    const at::Tensor products = clip.embed_images(tensor_named(batch, "images"))
                                    .matmul(clip.embed_texts(tensor_named(batch, "input_ids")).t());
    EXPECT_NEAR(similarity().sub(products * 100).abs().max().item<float>(), 0, 1e-3F);
  }
  // A smaller scale would be better: that gradient passes; a larger one: it does not.
  similarity().abs().sum().backward();
  EXPECT_GT(scale.grad().item<float>(), 0);
  scale.mutable_grad().reset();
  similarity().abs().sum().neg().backward();
  EXPECT_EQ(scale.grad().item<float>(), 0);
}

TEST(Clip, SendsTheGradientOfTheLossToBothTowers) {
  const auto model = make_model(kTinyClip, pictures().facts(), 1, at::kFloat);
  ASSERT_TRUE(model) << model.error().message;
  model->forward(batch_of(0, 5)).loss.backward();
  std::size_t images = 0;
  std::size_t texts = 0;
  for (const auto& item : model->module->named_parameters()) {
    ASSERT_TRUE(item.value().grad().defined()) << item.key();
    EXPECT_GT(item.value().grad().abs().max().item<float>(), 0) << item.key();
    images += item.key().starts_with("image.");
    texts += item.key().starts_with("text.");
  }
  EXPECT_EQ(images, 3U * 4 + 2);
  EXPECT_EQ(texts, 2U + 2 * 12 + 2 + 1);
}

TEST(Clip, LearnsWhichCaptionBelongsToWhichPicture) {
  const auto model = make_model(kTinyClip, pictures().facts(), 1, at::kFloat);
  ASSERT_TRUE(model) << model.error().message;
  Optimizer optimizer(named_parameters(*model), OptimizerConfig{});
  const auto batch = batch_of(0, 10);
  const double first = model->forward(batch).loss.item<double>();
  for (int step = 0; step < 30; ++step) {
    model->forward(batch).loss.backward();
    optimizer.clip_grad_norm(1.0);
    ASSERT_TRUE(optimizer.step(5e-3));
    for (auto& parameter : model->module->parameters()) parameter.mutable_grad().reset();
  }
  const Losses last = model->forward(batch);
  EXPECT_GT(first, 1.5);
  EXPECT_LT(last.loss.item<double>(), 0.5 * first);
  EXPECT_EQ(last.count, 10);
  EXPECT_GE(last.correct.item<std::int64_t>(), 7);
}

}  // namespace
}  // namespace bulkhead
