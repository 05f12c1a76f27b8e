// Batches of all three kinds of data, and the check of batches from outside.
#include "data/dataset.h"

#include <array>

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

namespace bulkhead {
namespace {

Dataset load(const DataConfig& config, std::int64_t context = 8) {
  auto dataset = load_dataset(config, context);
  CHECK(dataset.ok(), dataset.error().message);
  return std::move(*dataset);
}

DataConfig config_of(const std::string& type, const std::string& path) {
  DataConfig config;
  config.type = type;
  config.path = BULKHEAD_TEST_DATA "/" + path;
  return config;
}

const Dataset& shakespeare() {
  static const Dataset dataset = load(config_of("text", "shakespeare/input.txt"));
  return dataset;
}

std::string text_of(const at::Tensor& row) {
  return shakespeare().facts().decode(
      std::span(row.const_data_ptr<std::int64_t>(), static_cast<std::size_t>(row.numel())));
}

TEST(Dataset, GivesTextWithLabelsOneTokenLater) {
  const auto batch = shakespeare().gather(Split::kTrain, std::array<std::int64_t, 2>{1, 0});
  const auto& inputs = tensor_named(batch, "input_ids");
  const auto& labels = tensor_named(batch, "labels");
  EXPECT_EQ(inputs.sizes(), (at::IntArrayRef{2, 8}));
  EXPECT_EQ(text_of(inputs[1]), "First Ci");
  EXPECT_EQ(text_of(labels[1]), "irst Cit");
  EXPECT_EQ(text_of(inputs[0]), "tizen:\nB");
}

TEST(Dataset, GivesTheLastSampleOfEachSplit) {
  for (const Split split : {Split::kTrain, Split::kValidation}) {
    const std::int64_t last = shakespeare().size(split) - 1;
    EXPECT_EQ(tensor_named(shakespeare().gather(split, std::span(&last, 1)), "labels").size(1), 8);
  }
  EXPECT_EQ(shakespeare().train_size(), (1003854 - 1) / 8);
}

TEST(Dataset, NormalisesImagesWithMnistsMeanAndDeviation) {
  const Dataset mnist = load(config_of("mnist", "mnist"));
  const auto facts = mnist.facts();
  EXPECT_EQ(facts.kind, DataKind::kImages);
  EXPECT_EQ(facts.classes, 10);
  std::vector<std::int64_t> all(60000);
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::int64_t>(i);
  const auto batch = mnist.gather(Split::kTrain, all);
  const auto& images = tensor_named(batch, "images");
  EXPECT_EQ(images.sizes(), (at::IntArrayRef{60000, 1, 28, 28}));
  EXPECT_NEAR(images.mean().item<float>(), 0.0F, 1e-3F);
  EXPECT_NEAR(images.std().item<float>(), 1.0F, 1e-3F);
  EXPECT_EQ(tensor_named(batch, "labels")[0].item<std::int64_t>(), 5);
  EXPECT_TRUE(check_batch(batch, facts));
}

TEST(Dataset, GivesRowsOfATableFromTheRightSplit) {
  auto config = config_of("csv", "csv/digits.csv");
  config.target = "digit";
  const Dataset digits = load(config);
  EXPECT_EQ(digits.train_size(), 1800);
  EXPECT_EQ(digits.validation_size(), 200);
  EXPECT_EQ(digits.facts().features, 16);
  const auto batch = digits.gather(Split::kValidation, std::array<std::int64_t, 1>{199});
  EXPECT_EQ(tensor_named(batch, "features").sizes(), (at::IntArrayRef{1, 16}));
  EXPECT_TRUE(check_batch(batch, digits.facts()));
}

TEST(Dataset, NamesAnUnknownType) {
  const auto dataset = load_dataset(config_of("textt", "shakespeare/input.txt"), 8);
  ASSERT_FALSE(dataset);
  EXPECT_EQ(dataset.error().message, "data.type: 'textt' is none of text, mnist, csv");
}

TEST(Dataset, RefusesNumbersThatCannotBeMeant) {
  auto config = config_of("text", "shakespeare/input.txt");
  EXPECT_EQ(load_dataset(config, 0).error().message, "model.context: 0 must be at least 1");
  config.validation_fraction = 1;
  EXPECT_EQ(load_dataset(config, 8).error().message,
            "data.validation_fraction: must be at least 0 and below 1");
  config.path = "";
  EXPECT_EQ(load_dataset(config, 8).error().message, "data.path: missing");
}

TEST(Dataset, NamesAMissingVocabularyFolder) {
  auto config = config_of("text", "shakespeare/input.txt");
  config.tokenizer = "gpt2";
  EXPECT_NE(load_dataset(config, 8).error().message.find("data.vocabulary: missing"), std::string::npos);
}

class CheckBatch : public testing::Test {
 protected:
  std::string failure() const {
    const auto checked = check_batch(batch_, facts_);
    return checked ? "" : checked.error().message;
  }
  DatasetFacts facts_ = shakespeare().facts();
  TensorBatch batch_ = shakespeare().gather(Split::kTrain, std::array<std::int64_t, 2>{0, 1});
};

TEST_F(CheckBatch, TakesWhatTheDataGivesAndShorterTexts) {
  EXPECT_EQ(failure(), "");
  for (auto& named : batch_) named.value = named.value.slice(1, 0, 5).contiguous();
  EXPECT_EQ(failure(), "");
}

TEST_F(CheckBatch, RefusesATokenOutsideTheVocabulary) {
  batch_[0].value[1][3] = 65;
  EXPECT_EQ(failure(), "the batch has 65 in 'input_ids'; valid are 0 … 64");
  batch_[0].value[1][3] = -1;
  EXPECT_EQ(failure(), "the batch has -1 in 'input_ids'; valid are 0 … 64");
}

TEST_F(CheckBatch, RefusesTensorsThatAreMissingOrOfAnotherShape) {
  const auto labels = batch_[1];
  batch_.pop_back();
  EXPECT_EQ(failure(), "the batch has no 'labels'");
  batch_.push_back({"labels", labels.value.to(at::kInt)});
  EXPECT_NE(failure().find("a 'labels' of Int[2,8]"), std::string::npos) << failure();
  batch_.back().value = labels.value.slice(0, 0, 1);
  EXPECT_NE(failure().find("another number of samples"), std::string::npos) << failure();
  batch_.back().value = at::zeros({2, 9}, at::kLong);
  EXPECT_NE(failure().find("does not fit the model"), std::string::npos) << failure();
}

}  // namespace
}  // namespace bulkhead
