// Captioned pictures on their way from a folder to a batch, value by value.
#include "data/captions.h"

#include <algorithm>
#include <cstring>
#include <fstream>

#include <gtest/gtest.h>

#include "protocol/texts.h"
#include "support/pictures.h"
#include "support/temporary_directory.h"

namespace bulkhead {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<std::int64_t>;

class CaptionFolder : public testing::Test {
 protected:
  CaptionFolder() {
    config_.type = "captions";
    config_.path = folder_.path().string();
    config_.image_size = 2;
    config_.validation_fraction = 0;
    config_.batch_size = 2;
  }

  void write(const std::string& name, const std::string& bytes) {
    const fs::path file = folder_.path() / name;
    fs::create_directories(file.parent_path());
    std::ofstream(file, std::ios::binary) << bytes;
  }
  // A plain picture of that grey and its caption.
  void add(const std::string& stem, const std::string& caption, std::uint8_t grey = 0) {
    write(stem + ".png", png_file(2, 2, plain(4, {grey, grey, grey})));
    write(stem + ".txt", caption);
  }
  CaptionData load(std::int64_t context = 8) const {
    auto data = CaptionData::load(config_, context);
    CHECK(data.ok(), data.error().message);
    return std::move(*data);
  }
  std::string below(const std::string& name) const { return (folder_.path() / name).string(); }

  TemporaryDirectory folder_;
  DataConfig config_;
};

template <class Value>
std::vector<Value> values_of(const Tensor& tensor) {
  std::vector<Value> values(tensor.bytes.size / sizeof(Value));
  std::memcpy(values.data(), tensor.bytes.data, tensor.bytes.size);
  return values;
}

std::vector<std::string> texts_of(const Batch& batch, const std::string& name) {
  auto texts = unpack_texts(batch, name);
  CHECK(texts.ok(), texts.error().message);
  return std::move(*texts);
}

Batch all_of(const CaptionData& data, Split split = Split::kTrain) {
  Ids all(static_cast<std::size_t>(data.sizes().range(split).count));
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::int64_t>(i);
  return data.raw_samples(split, all);
}

Batch collated(const CaptionData& data, const Batch& raw) {
  auto batch = data.collate(raw);
  CHECK(batch.ok(), batch.error().message);
  return std::move(*batch);
}

TEST_F(CaptionFolder, IsReadInTheOrderOfThePathsWithItsSubFolders) {
  add("b", "second");
  add("a/z", "first");
  add("c/d/e", "third");
  add("c/d/.hidden", "never");
  add(".thumbs/x", "never");
  write("notes.txt", "a text without a picture");
  write("f.PNG", png_file(2, 2, plain(4, {1, 2, 3})));
  write("f.txt", "fourth");
  write("g.Jpeg", jpeg_file(2, 2, plain(4, {1, 2, 3})));
  write("g.txt", "fifth");
  const Batch raw = all_of(load());
  EXPECT_EQ(texts_of(raw, "captions"),
            (std::vector<std::string>{"first", "second", "third", "fourth", "fifth"}));
  EXPECT_EQ(texts_of(raw, "paths"),
            (std::vector<std::string>{below("a/z.png"), below("b.png"), below("c/d/e.png"), below("f.PNG"),
                                      below("g.Jpeg")}));
}

TEST_F(CaptionFolder, GivesTheFirstLineOfATextWithoutTheSpaceAroundIt) {
  add("a", "\xEF\xBB\xBF  red, car\t\r\nsecond line\n");
  add("b", "no line's end");
  add("c", "");
  add("d", "  \nempty first line");
  add("e", "größe\n\xFF only the first line counts");
  EXPECT_EQ(texts_of(all_of(load()), "captions"),
            (std::vector<std::string>{"red, car", "no line's end", "", "", "größe"}));
}

TEST_F(CaptionFolder, GivesSamplesAsThePluginsSeeThem) {
  add("a", "one", 10);
  add("b", "two", 20);
  add("c", "three", 30);
  const Batch raw = load().raw_samples(Split::kTrain, Ids{2, 0});
  EXPECT_EQ(describe(raw),
            "images uint8[2,2,2,3], captions uint8[8], captions.ends int64[2], "
            "paths uint8[" +
                std::to_string(2 * below("a.png").size()) + "], paths.ends int64[2], sample int64[2]");
  Bytes pixels(24, 10);
  std::fill_n(pixels.begin(), 12, std::uint8_t{30});
  EXPECT_EQ(values_of<std::uint8_t>(*find_tensor(raw, "images")), pixels);
  EXPECT_EQ(texts_of(raw, "captions"), (std::vector<std::string>{"three", "one"}));
  EXPECT_EQ(values_of<std::int64_t>(*find_tensor(raw, "sample")), (Ids{2, 0}));
}

TEST_F(CaptionFolder, NormalisesColoursChannelByChannel) {
  write("a.png", png_file(2, 2, {0, 51, 255, 102, 153, 204, 0, 0, 0, 255, 255, 255}));
  write("a.txt", "x");
  const CaptionData data = load();
  const Batch batch = collated(data, all_of(data));
  EXPECT_EQ(describe(batch), "images float32[1,3,2,2], input_ids int64[1,8]");
  const std::vector<float> expected = {-1.0F, -0.2F, -1.0F, 1.0F,  //
                                       -0.6F, 0.2F,  -1.0F, 1.0F,  //
                                       1.0F,  0.6F,  -1.0F, 1.0F};
  const auto values = values_of<float>(batch[0]);
  ASSERT_EQ(values.size(), expected.size());
  for (std::size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(values[i], expected[i], 1e-6F) << i;
}

TEST_F(CaptionFolder, TokenisesCaptionsAsStartTextEndPadding) {
  add("a", "cab");
  add("b", "");
  add("c", "abcabcabc");
  const CaptionData data = load(6);
  // a, b, c are 0, 1, 2, so 3 starts, 4 ends and 5 pads.
  EXPECT_EQ(data.tokens().start(), 3);
  EXPECT_EQ(data.tokens().end(), 4);
  EXPECT_EQ(data.tokens().padding(), 5);
  EXPECT_EQ(data.tokens().size(), 7);
  EXPECT_EQ(values_of<std::int64_t>(collated(data, all_of(data))[1]), (Ids{3, 2, 0, 1, 4, 5,  //
                                                                           3, 4, 5, 5, 5, 5,  //
                                                                           3, 0, 1, 2, 0, 4}));
}

TEST_F(CaptionFolder, KnowsTheCharactersOfTheTrainingCaptionsOnly) {
  add("a", "ab");
  add("b", "ba");
  add("c", "azé");
  config_.test_fraction = 0.33;
  const CaptionData data = load(6);
  ASSERT_EQ(data.sizes().test, 1);
  const auto ids = values_of<std::int64_t>(collated(data, all_of(data, Split::kTest))[1]);
  EXPECT_EQ(ids, (Ids{2, 0, 5, 5, 3, 4}));
  EXPECT_EQ(data.tokens().decode(ids), "a\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST_F(CaptionFolder, NumbersSamplesOverAllSplits) {
  for (int i = 0; i < 10; ++i) add(std::string(1, static_cast<char>('a' + i)), "caption");
  config_.validation_fraction = 0.1;
  config_.test_fraction = 0.2;
  const CaptionData data = load();
  EXPECT_EQ(data.sizes().train, 7);
  const auto numbers = [&](Split split) {
    return values_of<std::int64_t>(*find_tensor(all_of(data, split), "sample"));
  };
  EXPECT_EQ(numbers(Split::kTrain), (Ids{0, 1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(numbers(Split::kValidation), (Ids{7}));
  EXPECT_EQ(numbers(Split::kTest), (Ids{8, 9}));
}

TEST_F(CaptionFolder, TakesWhatPluginsMadeOfTheSamples) {
  add("a", "ab");
  add("b", "ab");
  const CaptionData data = load(5);
  Batch raw = all_of(data);
  raw[0].bytes = Blob::of(std::string(24, '\xFF'));
  for (Tensor& tensor : pack_texts("captions", std::vector<std::string>{"b", "baab!"})) {
    for (Tensor& old : raw) {
      if (old.name == tensor.name) old = tensor;
    }
  }
  std::swap(raw[0], raw[5]);  // their order is of no account
  const Batch batch = collated(data, raw);
  EXPECT_EQ(values_of<float>(batch[0]), std::vector<float>(24, 1.0F));
  EXPECT_EQ(values_of<std::int64_t>(batch[1]), (Ids{2, 1, 3, 4, 4, 2, 1, 0, 0, 3}));
}

TEST(Captions, AreTheTenPicturesAndTheSameEachTime) {
  DataConfig config;
  config.type = "captions";
  config.path = BULKHEAD_TEST_DATA "/captions";
  config.image_size = 32;
  config.validation_fraction = 0;
  const auto load = [&] {
    auto data = CaptionData::load(config, 77);
    CHECK(data.ok(), data.error().message);
    return std::move(*data);
  };
  const CaptionData data = load();
  const Batch raw = all_of(data);
  EXPECT_EQ(raw[0].shape, (Ids{10, 32, 32, 3}));
  const auto captions = texts_of(raw, "captions");
  EXPECT_EQ(captions[2], "a close-up of an orange tabby cat with green eyes and white whiskers");
  const Batch batch = collated(data, raw);
  const auto ids = values_of<std::int64_t>(batch[1]);
  const std::span<const std::int64_t> cat(ids.data() + 2 * 77, 77);
  EXPECT_EQ(data.tokens().decode(cat), captions[2]);

  const CaptionData again = load();
  EXPECT_EQ(raw[0].bytes.text(), all_of(again)[0].bytes.text());
  EXPECT_EQ(batch[0].bytes.text(), collated(again, all_of(again))[0].bytes.text());
  EXPECT_EQ(batch[1].bytes.text(), collated(again, all_of(again))[1].bytes.text());
}

TEST(Captions, AreTokenisedByGpt2WhereTheRunFileSaysSo) {
  DataConfig config;
  config.type = "captions";
  config.path = BULKHEAD_TEST_DATA "/captions";
  config.tokenizer = "gpt2";
  config.vocabulary = BULKHEAD_TEST_DATA "/gpt2-bpe";
  const auto data = CaptionData::load(config, 8);
  ASSERT_TRUE(data) << data.error().message;
  EXPECT_EQ(data->tokens().size(), 50257 + 3);
  std::vector<std::int64_t> row(8);
  data->tokens().encode("Hello world", row);
  EXPECT_EQ(row, (Ids{50257, 15496, 995, 50258, 50259, 50259, 50259, 50259}));
  EXPECT_EQ(data->tokens().decode(row), "Hello world");
}

}  // namespace
}  // namespace bulkhead
