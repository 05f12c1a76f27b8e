// GPT-2's tokenizer against known token ids, and damaged vocabulary files.
#include "data/bpe.h"

#include <filesystem>
#include <fstream>
#include <unistd.h>

#include <gtest/gtest.h>

#include "data/files.h"
#include "data/text.h"

namespace bulkhead {
namespace {

namespace fs = std::filesystem;

const Bpe& gpt2() {
  static const Bpe bpe = [] {
    auto loaded = Bpe::load(BULKHEAD_TEST_DATA "/gpt2-bpe");
    CHECK(loaded.ok(), loaded.error().message);
    return std::move(*loaded);
  }();
  return bpe;
}

using Tokens = std::vector<std::int32_t>;

std::string round_trip(const std::string& text) {
  const auto tokens = gpt2().encode(text);
  return gpt2().decode(std::vector<std::int64_t>(tokens.begin(), tokens.end()));
}

TEST(Bpe, KnowsAllOfGpt2sTokens) { EXPECT_EQ(gpt2().size(), 50257); }

// Values from openai/gpt-2's own encoder.
TEST(Bpe, EncodesAsGpt2Does) {
  EXPECT_EQ(gpt2().encode("Hello world"), (Tokens{15496, 995}));
  EXPECT_EQ(gpt2().encode("\n"), (Tokens{198}));
  EXPECT_EQ(gpt2().encode("\n\n"), (Tokens{628}));
  EXPECT_EQ(gpt2().encode(" "), (Tokens{220}));
  EXPECT_EQ(gpt2().encode("I'm"), (Tokens{40, 1101}));
  EXPECT_TRUE(gpt2().encode("").empty());
}

TEST(Bpe, LeavesTheLastOfSeveralSpacesToTheNextWord) {
  EXPECT_EQ(gpt2().encode("a   b"), (Tokens{64, 220, 220, 275}));
}

TEST(Bpe, GivesAllOfShakespeareIts338025TokensAndBack) {
  const auto text = read_file(BULKHEAD_TEST_DATA "/shakespeare/input.txt", "data.path");
  ASSERT_TRUE(text);
  const auto tokens = gpt2().encode(*text);
  EXPECT_EQ(tokens.size(), 338025U);
  EXPECT_EQ(gpt2().decode(std::vector<std::int64_t>(tokens.begin(), tokens.end())), *text);
}

TEST(Bpe, RoundTripsEveryKindOfCharacter) {
  std::string every_byte_length = "é€𝄞 \t\r\n\u00a0\u3000日本語 ١٢٣ don't 🇩🇪";
  for (char c = 1; c < 127; ++c) every_byte_length += c;
  EXPECT_EQ(round_trip(every_byte_length), every_byte_length);
  EXPECT_EQ(round_trip("<|endoftext|>"), "<|endoftext|>");
}

TEST(Bpe, EncodesAMegabyteWithoutASpaceInReasonableTime) {
  const std::string run(1 << 20, 'a');
  EXPECT_EQ(round_trip(run), run);
  const std::string spaces(1 << 20, ' ');
  EXPECT_EQ(round_trip(spaces), spaces);
}

TEST(Bpe, DecodesUnknownIdsAsTheReplacementCharacter) {
  EXPECT_EQ(gpt2().decode(std::vector<std::int64_t>{50257, -1}), "\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST(Bpe, StartsTextAfterALineEnd) {
  auto loaded = Bpe::load(BULKHEAD_TEST_DATA "/gpt2-bpe");
  ASSERT_TRUE(loaded);
  EXPECT_EQ(start_token(Tokenizer(std::move(*loaded))), 198);
}

// A copy of the vocabulary in which a test may damage one file.
class DamagedBpe : public testing::Test {
 protected:
  DamagedBpe() {
    fs::create_directories(folder_);
    for (const char* name : {"encoder.json", "vocab.bpe"}) {
      fs::copy_file(fs::path(BULKHEAD_TEST_DATA "/gpt2-bpe") / name, folder_ / name,
                    fs::copy_options::overwrite_existing);
      fs::permissions(folder_ / name, fs::perms::owner_write, fs::perm_options::add);
    }
  }
  ~DamagedBpe() override { fs::remove_all(folder_); }

  std::string failure() const {
    const auto loaded = Bpe::load(folder_);
    return loaded ? "" : loaded.error().message;
  }

  fs::path folder_ =
      fs::path(testing::TempDir()) / (std::string("bpe_") + std::to_string(getpid()) + "_" +
                                      testing::UnitTest::GetInstance()->current_test_info()->name());
};

TEST_F(DamagedBpe, IsReportedWhenAFileIsMissing) {
  fs::remove(folder_ / "vocab.bpe");
  EXPECT_EQ(failure(), "data.vocabulary: " + (folder_ / "vocab.bpe").string() + " does not exist");
}

TEST_F(DamagedBpe, IsReportedWhenTheTokensAreNotJson) {
  fs::resize_file(folder_ / "encoder.json", 1000);
  EXPECT_NE(failure().find("encoder.json is not a JSON object"), std::string::npos) << failure();
}

TEST_F(DamagedBpe, IsReportedWhenAnIdOccursTwice) {
  std::ofstream(folder_ / "encoder.json") << R"({"a": 0, "b": 0})";
  EXPECT_NE(failure().find("the id 0; ids must be 0 … 1, each once"), std::string::npos) << failure();
}

TEST_F(DamagedBpe, IsReportedWhenAByteHasNoToken) {
  std::ofstream(folder_ / "encoder.json") << R"({"a": 0, "b": 1})";
  EXPECT_NE(failure().find("has no token for byte 0"), std::string::npos) << failure();
}

TEST_F(DamagedBpe, IsReportedWithTheLineOfAnUnknownMerge) {
  std::ofstream(folder_ / "vocab.bpe") << "#version: 0.2\n\u0120 t\nqqq zzz\n";
  EXPECT_NE(failure().find("vocab.bpe:3 merges 'qqq zzz'"), std::string::npos) << failure();
}

}  // namespace
}  // namespace bulkhead
