// Text as characters: vocabulary, splits, and what is refused.
#include "data/text.h"

#include <filesystem>
#include <fstream>
#include <unistd.h>

#include <gtest/gtest.h>

#include "data/files.h"

namespace bulkhead {
namespace {

// A text file that is gone at the end of the test.
class TextFile : public testing::Test {
 protected:
  DataConfig config_for(const std::string& content) {
    std::ofstream(path_, std::ios::binary) << content;
    DataConfig config;
    config.path = path_.string();
    return config;
  }
  void TearDown() override { std::filesystem::remove(path_); }

  std::filesystem::path path_ = std::filesystem::path(testing::TempDir()) /
                                (std::string("text_") + std::to_string(getpid()) + "_" +
                                 testing::UnitTest::GetInstance()->current_test_info()->name());
};

DataConfig shakespeare() {
  DataConfig config;
  config.path = BULKHEAD_TEST_DATA "/shakespeare/input.txt";
  return config;
}

TEST(Characters, AreSortedByCodePointAndRoundTrip) {
  const std::string text = "zaß€𝄞a";
  const auto characters = Characters::of(text);
  EXPECT_EQ(characters.size(), 5);
  const auto tokens = characters.encode(text);
  EXPECT_EQ(tokens, (std::vector<std::int32_t>{1, 0, 2, 3, 4, 0}));
  EXPECT_EQ(characters.decode(std::vector<std::int64_t>(tokens.begin(), tokens.end())), text);
}

TEST(Characters, DecodeUnknownIdsAsTheReplacementCharacter) {
  EXPECT_EQ(Characters::of("ab").decode(std::vector<std::int64_t>{0, 7, -1}), "a\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST(Text, SplitsShakespeareIntoItsFirstNineTenthsAndTheRest) {
  const auto data = load_text(shakespeare(), 64);
  ASSERT_TRUE(data) << data.error().message;
  EXPECT_EQ(vocabulary_size(*data->tokenizer), 65);
  EXPECT_EQ(start_token(*data->tokenizer), 0);  // the line's end is the smallest of its characters
  EXPECT_EQ(data->train.size(), 1003854U);
  EXPECT_EQ(data->train.size() + data->validation.size(), 1115394U);
  const std::vector<std::int64_t> beginning(data->train.begin(), data->train.begin() + 14);
  EXPECT_EQ(decode(*data->tokenizer, beginning), "First Citizen:");
}

TEST_F(TextFile, KeepsItsLastTokensForTheTestAndThoseBeforeForValidation) {
  auto config = config_for("abcdefghijklmnopqrst");
  config.validation_fraction = 0.3;
  config.test_fraction = 0.2;
  const auto data = load_text(config, 2);
  ASSERT_TRUE(data) << data.error().message;
  const auto text_of = [&](Split split) {
    const auto& part = data->part(split);
    return decode(*data->tokenizer, std::vector<std::int64_t>(part.begin(), part.end()));
  };
  EXPECT_EQ(text_of(Split::kTrain), "abcdefghij");
  EXPECT_EQ(text_of(Split::kValidation), "klmnop");
  EXPECT_EQ(text_of(Split::kTest), "qrst");
}

TEST_F(TextFile, RefusesATestPartShorterThanOneSampleAndSaysWhatHelps) {
  auto config = config_for("0123456789");
  config.validation_fraction = 0;
  config.test_fraction = 0.2;
  const auto data = load_text(config, 4);
  ASSERT_FALSE(data);
  EXPECT_NE(data.error().message.find("2 tokens for the test"), std::string::npos) << data.error().message;
  EXPECT_NE(data.error().message.find("raise data.test_fraction, or set it to 0"), std::string::npos);
}

TEST(Characters, GiveTheUnknownIdWhereThereIsOne) {
  EXPECT_EQ(Characters::of("ab").encode("b?a", 9), (std::vector<std::int32_t>{1, 9, 0}));
}

TEST(Text, CountsOnlySamplesWhoseLastLabelExists) {
  EXPECT_EQ(TextData::samples(std::vector<std::int32_t>(9), 4), 2);
  EXPECT_EQ(TextData::samples(std::vector<std::int32_t>(8), 4), 1);
  EXPECT_EQ(TextData::samples(std::vector<std::int32_t>(4), 4), 0);
  EXPECT_EQ(TextData::samples({}, 4), 0);
}

TEST(Text, NamesAMissingFileAndItsKey) {
  DataConfig config;
  config.path = "no/such/file.txt";
  const auto data = load_text(config, 8);
  ASSERT_FALSE(data);
  EXPECT_EQ(data.error().message, "data.path: no/such/file.txt does not exist");
}

TEST(Text, RefusesAFolder) {
  DataConfig config;
  config.path = testing::TempDir();
  const auto data = load_text(config, 8);
  ASSERT_FALSE(data);
  EXPECT_NE(data.error().message.find("is a folder"), std::string::npos);
}

TEST_F(TextFile, NamesTheFirstByteThatIsNotUtf8) {
  const auto data = load_text(config_for("abc\xC3(def"), 1);
  ASSERT_FALSE(data);
  EXPECT_NE(data.error().message.find("is not UTF-8 text at byte 3"), std::string::npos)
      << data.error().message;
}

TEST_F(TextFile, RefusesATextShorterThanOneSample) {
  const auto data = load_text(config_for("0123456789"), 9);
  ASSERT_FALSE(data);
  EXPECT_NE(data.error().message.find("leaves 9 tokens for training"), std::string::npos)
      << data.error().message;
}

TEST_F(TextFile, RefusesAValidationPartShorterThanOneSampleAndSaysWhatHelps) {
  auto config = config_for("0123456789");
  config.validation_fraction = 0.2;
  const auto data = load_text(config, 4);
  ASSERT_FALSE(data);
  EXPECT_NE(data.error().message.find("2 tokens for validation"), std::string::npos) << data.error().message;
  EXPECT_NE(data.error().message.find("data.validation_fraction"), std::string::npos);
  config.validation_fraction = 0;
  EXPECT_TRUE(load_text(config, 4));
}

TEST_F(TextFile, RefusesAnEmptyFile) { EXPECT_FALSE(load_text(config_for(""), 4)); }

TEST_F(TextFile, RefusesAnUnknownTokenizer) {
  auto config = config_for("0123456789");
  config.tokenizer = "words";
  const auto data = load_text(config, 2);
  ASSERT_FALSE(data);
  EXPECT_NE(data.error().message.find("data.tokenizer: 'words'"), std::string::npos);
}

TEST(Utf8, RefusesOverlongSurrogateTruncatedAndTooLargeForms) {
  EXPECT_FALSE(first_invalid_utf8("a\xC3\xA9\xE2\x82\xAC\xF0\x9D\x84\x9E"));
  EXPECT_EQ(first_invalid_utf8("\xC0\x80"), 0U);
  EXPECT_EQ(first_invalid_utf8("a\xE0\x80\x80"), 1U);
  EXPECT_EQ(first_invalid_utf8("\xED\xA0\x80"), 0U);
  EXPECT_EQ(first_invalid_utf8("\xF4\x90\x80\x80"), 0U);
  EXPECT_EQ(first_invalid_utf8("ab\xE2\x82"), 2U);
  EXPECT_EQ(first_invalid_utf8("\x80"), 0U);
}

}  // namespace
}  // namespace bulkhead
