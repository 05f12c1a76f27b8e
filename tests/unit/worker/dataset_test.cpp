// Batches of all kinds of data, and the check of batches from outside.
#include "data/dataset.h"

#include <array>
#include <fstream>

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "support/temporary_directory.h"

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
  auto config = config_of("mnist", "mnist");
  config.validation_fraction = -1;
  const Dataset mnist = load(config);
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

TEST(Dataset, GivesEveryTypeATestWhereOneIsAskedFor) {
  struct Expected {
    DataConfig config;
    std::int64_t train, validation, test;
  };
  auto text = config_of("text", "shakespeare/input.txt");
  auto csv = config_of("csv", "csv/digits.csv");
  csv.target = "digit";
  auto mnist = config_of("mnist", "mnist");
  auto captions = config_of("captions", "captions");
  for (DataConfig* config : {&text, &csv, &mnist, &captions}) {
    config->validation_fraction = 0.1;
    config->test_fraction = 0.2;
  }
  const std::vector<Expected> all = {{text, (780775 - 1) / 8, (111540 - 1) / 8, (223079 - 1) / 8},
                                     {csv, 1400, 200, 400},
                                     {mnist, 54000, 6000, 10000},
                                     {captions, 7, 1, 2}};
  for (const auto& expected : all) {
    const Dataset dataset = load(expected.config);
    EXPECT_EQ(dataset.train_size(), expected.train) << expected.config.type;
    EXPECT_EQ(dataset.validation_size(), expected.validation) << expected.config.type;
    EXPECT_EQ(dataset.test_size(), expected.test) << expected.config.type;
    for (const Split split : {Split::kTrain, Split::kValidation, Split::kTest}) {
      const std::int64_t last = dataset.size(split) - 1;
      const auto batch = dataset.gather(split, std::span(&last, 1));
      const auto fits = check_batch(batch, dataset.facts());
      EXPECT_TRUE(fits) << expected.config.type;
    }
  }
}

TEST(Dataset, HasNoTestWhereNoneIsAskedFor) {
  EXPECT_EQ(shakespeare().test_size(), 0);
  auto config = config_of("captions", "captions");
  EXPECT_EQ(load(config).test_size(), 0);
}

TEST(Dataset, CutsTheTestFromTheEnd) {
  auto config = config_of("text", "shakespeare/input.txt");
  config.test_fraction = 0.1;
  const Dataset tested = load(config);
  const Dataset validated = load(config_of("text", "shakespeare/input.txt"));
  const auto labels = [](const Dataset& data, Split split) {
    return tensor_named(data.gather(split, std::array<std::int64_t, 1>{5}), "labels");
  };
  EXPECT_TRUE(at::equal(labels(tested, Split::kTest), labels(validated, Split::kValidation)));
  EXPECT_FALSE(at::equal(labels(tested, Split::kValidation), labels(tested, Split::kTest)));
}

TEST(Dataset, GivesCaptionedPicturesReadyForTheModel) {
  auto config = config_of("captions", "captions");
  config.image_size = 24;
  const Dataset data = load(config, 20);
  ASSERT_TRUE(data.has_samples());
  EXPECT_FALSE(shakespeare().has_samples());
  const auto facts = data.facts();
  EXPECT_EQ(facts.kind, DataKind::kCaptions);
  EXPECT_EQ(facts.channels, 3);
  EXPECT_EQ(facts.height, 24);
  EXPECT_EQ(facts.width, 24);
  EXPECT_EQ(facts.context, 20);

  const std::array<std::int64_t, 2> indices{4, 1};
  const auto batch = data.gather(Split::kTrain, indices);
  EXPECT_EQ(tensor_named(batch, "images").sizes(), (at::IntArrayRef{2, 3, 24, 24}));
  EXPECT_LE(tensor_named(batch, "images").abs().max().item<float>(), 1.0F);
  const auto& ids = tensor_named(batch, "input_ids");
  EXPECT_EQ(ids.sizes(), (at::IntArrayRef{2, 20}));
  EXPECT_EQ(ids[0][0].item<std::int64_t>(), facts.start_token);
  EXPECT_EQ(ids[0][19].item<std::int64_t>(), facts.end_token);  // cut there
  EXPECT_EQ(facts.decode(std::span(ids.const_data_ptr<std::int64_t>(), 20)), "a motion-blurred g");

  const auto collated = data.collate(data.raw_samples(Split::kTrain, indices));
  ASSERT_TRUE(collated) << collated.error().message;
  const auto same = from_wire(*collated);
  ASSERT_TRUE(same);
  EXPECT_TRUE(at::equal(tensor_named(*same, "images"), tensor_named(batch, "images")));
  EXPECT_TRUE(at::equal(tensor_named(*same, "input_ids"), ids));
}

TEST(Dataset, GivesRowsPaddedToTheLongestOfABatch) {
  auto config = config_of("rows", "chat.jsonl");
  const TemporaryDirectory directory;
  config.path = directory.path() / "rows.jsonl";
  std::ofstream(config.path) << R"({"text": "abca"})"
                             << "\n"
                             << R"({"text": "ab"})"
                             << "\n";
  config.validation_fraction = 0;
  const Dataset rows = load(config);
  EXPECT_TRUE(rows.has_samples());
  const DatasetFacts facts = rows.facts();
  EXPECT_EQ(facts.kind, DataKind::kRows);
  EXPECT_EQ(facts.vocabulary, 4) << "a, b, c and what is none of them";
  const auto batch = rows.gather(Split::kTrain, std::array<std::int64_t, 2>{1, 0});
  EXPECT_TRUE(
      at::equal(tensor_named(batch, "input_ids"), at::tensor({0, 0, 0, 0, 1, 2}, at::kLong).view({2, 3})));
  EXPECT_TRUE(
      at::equal(tensor_named(batch, "labels"), at::tensor({1, -100, -100, 1, 2, 0}, at::kLong).view({2, 3})));
  EXPECT_TRUE(check_batch(batch, facts).ok());
  EXPECT_EQ(facts.decode(std::array<std::int64_t, 3>{2, 0, 1}), "cab");

  const auto with_labels = [&](const at::Tensor& labels) {
    const Status checked =
        check_batch({{"input_ids", at::zeros({2, 3}, at::kLong)}, {"labels", labels}}, facts);
    return checked ? "" : checked.error().message;
  };
  EXPECT_EQ(with_labels(at::full({2, 3}, -100, at::kLong)),
            "the batch has no label in 'labels' that is learned");
  EXPECT_EQ(with_labels(at::full({2, 3}, 4, at::kLong)), "the batch has 4 in 'labels'; valid are 0 … 3");
  EXPECT_EQ(with_labels(at::full({2, 3}, -1, at::kLong)), "the batch has -1 in 'labels'; valid are 0 … 3");
  EXPECT_EQ(with_labels(at::zeros({2, 2}, at::kLong)),
            "the batch has 'labels' for another number of samples or tokens");
}

TEST(Dataset, NamesAnUnknownType) {
  const auto dataset = load_dataset(config_of("textt", "shakespeare/input.txt"), 8);
  ASSERT_FALSE(dataset);
  EXPECT_EQ(dataset.error().message, "data.type: 'textt' is none of text, mnist, csv, captions, rows");
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

TEST_F(CheckBatch, RefusesACaptionWithoutItsEndAndTakesAShorterOneWithIt) {
  const Dataset data = load(config_of("captions", "captions"), 20);
  facts_ = data.facts();
  batch_ = data.gather(Split::kTrain, std::array<std::int64_t, 2>{0, 1});
  EXPECT_EQ(failure(), "");
  at::Tensor ids = batch_[1].value.slice(1, 0, 10).contiguous();
  batch_[1].value = ids;
  EXPECT_EQ(failure(), "the batch has a caption without its end, the token " +
                           std::to_string(facts_.end_token) + ", in 'input_ids'");
  ids.select(1, 9).fill_(facts_.end_token);
  EXPECT_EQ(failure(), "");
  ids[1][0] = facts_.vocabulary;
  EXPECT_NE(failure().find("in 'input_ids'; valid are 0"), std::string::npos) << failure();
  ids[1][0] = 0;
  batch_[0].value = batch_[0].value.slice(2, 0, 32).contiguous();
  EXPECT_NE(failure().find("a 'images' of Float[2,3,32,64]"), std::string::npos) << failure();
}

}  // namespace
}  // namespace bulkhead
