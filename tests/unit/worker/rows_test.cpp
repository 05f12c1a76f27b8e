// Rows of JSON lines: reading, encoding, micro-batches, refusals.
#include "data/rows.h"

#include <array>
#include <fstream>

#include <gtest/gtest.h>

#include "data/row_data.h"
#include "data/token_rows.h"
#include "protocol/number_lists.h"
#include "support/temporary_directory.h"

namespace bulkhead {
namespace {

using Ids = std::vector<std::int64_t>;

class RowsTest : public ::testing::Test {
 protected:
  void write(const std::string& text) { std::ofstream(config_.path, std::ios::trunc) << text; }
  // What read_rows says.
  std::string complaint(const std::string& text) {
    write(text);
    const auto rows = read_rows(config_);
    return rows ? "it was read" : rows.error().message;
  }
  std::string encoding_complaint(const std::string& text, std::int64_t context = 100) {
    const auto made = tokens(text, context);
    return made ? "it was encoded" : made.error().message;
  }
  Result<TokenRows> tokens(const std::string& text, std::int64_t context = 100) {
    write(text);
    const auto rows = read_rows(config_);
    if (!rows) return rows.error();
    return tokenise(*rows, config_, context);
  }
  std::string place() const { return "data.path: " + config_.path; }

  const TemporaryDirectory directory_;
  DataConfig config_ = [this] {
    DataConfig config;
    config.type = "rows";
    config.path = directory_.path() / "rows.jsonl";
    config.validation_fraction = 0;
    return config;
  }();
};

Ids list(std::span<const std::int32_t> values) { return {values.begin(), values.end()}; }

// What the model is given of a sample, by characters; "." is what is not learned.
std::string text_of(const TokenRows& rows, std::span<const std::int32_t> tokens) {
  std::string text;
  for (const std::int32_t token : tokens) {
    text += token == kNotLearned ? "."
            : static_cast<std::size_t>(token) < rows.characters.size()
                ? rows.characters.substr(static_cast<std::size_t>(token), 1)
                : "?";
  }
  return text;
}

TEST_F(RowsTest, AreReadLineByLine) {
  write("{\"text\": \"a\"}\r\n\n   \n{\"n\": [1, {\"x\": null}]}");
  const auto rows = read_rows(config_);
  ASSERT_TRUE(rows.ok()) << rows.error().message;
  ASSERT_EQ(rows->texts.size(), 2U);
  EXPECT_EQ(rows->texts[1], "{\"n\": [1, {\"x\": null}]}");
  EXPECT_EQ(rows->lines, (Ids{1, 4}));
  EXPECT_EQ(rows->place_of(1), place() + " line 4");
}

TEST_F(RowsTest, NameFileAndLineOfWhatIsNoRow) {
  EXPECT_EQ(complaint("{\"text\": \"a\"}\n{\"text\": }\n"), place() + " line 2 is not JSON at byte 10");
  EXPECT_EQ(complaint("\n[1, 2]\n"), place() + " line 2 is JSON, but no object");
  EXPECT_EQ(complaint("{\"text\": \"\xff\"}\n"), place() + " line 1 is not UTF-8 text at byte 10");
  EXPECT_EQ(complaint("{\"a\": 1} {\"b\": 2}\n"), place() + " line 1 is not JSON at byte 10");
  EXPECT_EQ(complaint("{\"a\": 1e999}\n"), place() + " line 1 is not JSON that can be read");
  EXPECT_EQ(complaint("\n\n"), place() + " has no row");
  const std::string brackets(kDeepestRow, '[');
  EXPECT_EQ(complaint("{\"a\": " + brackets + "\n"), place() + " line 1 is nested more than 20 levels deep");
  EXPECT_EQ(complaint("{\"a\": \"" + brackets + "\\\"[\"}\n"), "it was read");
  config_.path += ".absent";
  EXPECT_TRUE(read_rows(config_).error().message.starts_with("data.path: ")) << "a missing file";
}

TEST_F(RowsTest, OfTextLearnAllOfIt) {
  const auto rows = tokens("{\"text\": \"abcab\"}\n{\"text\": \"ba\"}\n");
  ASSERT_TRUE(rows.ok()) << rows.error().message;
  EXPECT_EQ(rows->count(), 2);
  EXPECT_EQ(rows->characters, "abc");
  EXPECT_EQ(rows->vocabulary, 4);
  EXPECT_EQ(list(rows->sample(0).input_ids), (Ids{0, 1, 2, 0}));
  EXPECT_EQ(list(rows->sample(0).labels), (Ids{1, 2, 0, 1}));
  EXPECT_EQ(list(rows->sample(1).labels), (Ids{0}));
}

TEST_F(RowsTest, OfMessagesLearnWhatTheAssistantSays) {
  const auto rows = tokens(
      R"({"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"},)"
      R"( {"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Yes"}], "text": "not this"})"
      "\n");
  ASSERT_TRUE(rows.ok()) << rows.error().message;
  const TokenRows::Sample sample = rows->sample(0);
  EXPECT_EQ(text_of(*rows, sample.input_ids), "User: 2+2?\nAssistant: 4\nUser: Sure?\nAssistant: Yes");
  EXPECT_EQ(text_of(*rows, sample.labels), std::string(21, '.') + "4\n" + std::string(23, '.') + "Yes\n");
  EXPECT_EQ(text_of(*rows, std::span(&sample.labels.back(), 1)), "\n") << "its line's end is learned as well";
  EXPECT_EQ(rows->start_token, 0) << "the line's end is the first character";
}

TEST_F(RowsTest, AreCutToTheContextAndDroppedWhereNothingIsLearned) {
  const std::string rows =
      R"({"messages": [{"role": "user", "content": "abc"}, {"role": "assistant", "content": "x"}]})"
      "\n{\"text\": \"a\"}\n{\"text\": \"\"}\n{\"messages\": []}\n{\"text\": \"abcdef\"}\n";
  const auto all = tokens(rows, 100);
  ASSERT_TRUE(all.ok()) << all.error().message;
  EXPECT_EQ(all->count(), 2);
  EXPECT_EQ(all->dropped, 3);
  const auto some = tokens(rows, 4);
  ASSERT_TRUE(some.ok()) << some.error().message;
  EXPECT_EQ(some->count(), 1) << "the answer lies behind the context";
  EXPECT_EQ(text_of(*some, some->sample(0).input_ids), "abcd");
  EXPECT_EQ(text_of(*some, some->sample(0).labels), "bcde");
  EXPECT_EQ(encoding_complaint("{\"text\": \"a\"}\n"),
            place() +
                " leaves no sample for training: of 1 rows 1 have nothing that is learned within "
                "model.context, 100 tokens");
}

TEST_F(RowsTest, AreCutIntoSplitsBeforeThoseWithoutLabelsGo) {
  config_.validation_fraction = 0.25;
  config_.test_fraction = 0.25;
  const auto rows = tokens("{\"text\": \"ab\"}\n{\"text\": \"a\"}\n{\"text\": \"bz\"}\n{\"text\": \"ba\"}\n");
  ASSERT_TRUE(rows.ok()) << rows.error().message;
  EXPECT_EQ(rows->sizes.train, 1);
  EXPECT_EQ(rows->sizes.validation, 1);
  EXPECT_EQ(rows->sizes.test, 1);
  EXPECT_EQ(text_of(*rows, rows->sample(1).labels), "?") << "training has no z";
  EXPECT_EQ(rows->sample(1).labels[0], 2);
}

TEST_F(RowsTest, NameTheRowThatCannotBeEncoded) {
  const std::string good = "{\"text\": \"ab\"}\n";
  EXPECT_EQ(
      encoding_complaint(good + "{\"question\": \"a\"}\n"),
      place() +
          " line 2 has neither \"messages\" nor \"text\"; a plugin can make them (preprocess) or encode the "
          "row itself");
  EXPECT_EQ(encoding_complaint(good + "{\"text\": 5}\n"), place() + " line 2 has a \"text\" that is no text");
  EXPECT_EQ(encoding_complaint("{\"messages\": \"hello\"}\n"),
            place() + " line 1 has \"messages\" that are no list");
  for (const char* bad : {"[1]", "[{\"role\": \"\", \"content\": \"x\"}]", "[{\"role\": \"user\"}]",
                          "[{\"role\": \"user\", \"content\": 1}]"}) {
    EXPECT_EQ(encoding_complaint("{\"messages\": " + std::string(bad) + "}\n"),
              place() + " line 1 has a message, number 0, that is not {\"role\": text, \"content\": text}");
  }
  Rows made;
  made.path = config_.path;
  made.texts = {"{\"text\": \"ab\"}", "{}"};
  const auto tokens = tokenise(made, config_, 10);
  ASSERT_FALSE(tokens);
  EXPECT_TRUE(
      tokens.error().message.starts_with(place() + ", row 1 of those that the plugins have left, has"))
      << tokens.error().message;
}

TEST_F(RowsTest, WithGpt2HaveItsTokensPieceByPiece) {
  config_.tokenizer = "gpt2";
  config_.vocabulary = BULKHEAD_TEST_DATA "/gpt2-bpe";
  const auto rows = tokens(
      R"({"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello world"}]})"
      "\n");
  ASSERT_TRUE(rows.ok()) << rows.error().message;
  EXPECT_EQ(rows->vocabulary, 50257);
  EXPECT_EQ(rows->start_token, 198);
  const Ids labels = list(rows->sample(0).labels);
  EXPECT_EQ(Ids(labels.end() - 3, labels.end()), (Ids{15496, 995, 198}));
  EXPECT_EQ(std::count(labels.begin(), labels.end(), kNotLearned),
            static_cast<std::ptrdiff_t>(labels.size() - 3));
}

NumberLists lists_of(const std::vector<Ids>& all) {
  NumberLists lists;
  for (const Ids& one : all) lists.add(one);
  return lists;
}

TEST_F(RowsTest, ThatAPluginHasEncodedKeepItsIds) {
  const auto rows = tokenise_encoded(lists_of({{5, 6, 9}, {7}, {1, 2, 3, 4}}),
                                     lists_of({{5, -100, 9}, {7}, {-100, -100, 12, -100}}), config_, 2);
  ASSERT_TRUE(rows.ok()) << rows.error().message;
  EXPECT_EQ(rows->count(), 2);
  EXPECT_EQ(rows->dropped, 1);
  EXPECT_EQ(rows->vocabulary, 13);
  EXPECT_EQ(list(rows->sample(0).input_ids), (Ids{5, 6}));
  EXPECT_EQ(list(rows->sample(0).labels), (Ids{-100, 9}));
  EXPECT_EQ(list(rows->sample(1).labels), (Ids{-100, 12}));
  EXPECT_EQ(RowData(*rows, config_, 2).decode(Ids{5, 6}), "5 6");
  config_.tokenizer = "gpt2";
  config_.vocabulary = BULKHEAD_TEST_DATA "/gpt2-bpe";
  const auto known = tokenise_encoded(lists_of({{15496, 995}}), lists_of({{15496, 995}}), config_, 2);
  ASSERT_TRUE(known.ok()) << known.error().message;
  EXPECT_EQ(RowData(*known, config_, 2).decode(Ids{15496, 995}), "Hello world");
  const auto foreign = tokenise_encoded(lists_of({{1, 60000}}), lists_of({{1, 2}}), config_, 2);
  ASSERT_FALSE(foreign);
  EXPECT_EQ(foreign.error().message, "data.tokenizer: gpt2 has 50257 tokens, but encode gave 60000 in row 0");
}

TEST_F(RowsTest, GiveSamplesAndTheBatchThatNobodyElseMakes) {
  config_.validation_fraction = 0.4;
  const auto rows = tokens(
      "{\"text\": \"abc\"}\n{\"text\": \"ab\"}\n{\"text\": \"cba\"}\n{\"text\": \"ba\"}\n"
      "{\"text\": \"abca\"}\n");
  ASSERT_TRUE(rows.ok()) << rows.error().message;
  const RowData data(*rows, config_, 100);
  const Batch raw = data.raw_samples(Split::kValidation, std::array<std::int64_t, 2>{1, 0});
  EXPECT_EQ(
      describe(raw),
      "input_ids int64[4], input_ids.ends int64[2], labels int64[4], labels.ends int64[2], sample int64[2]");
  EXPECT_EQ(*unpack_numbers(raw, "sample"), (Ids{4, 3}));
  const auto batch = data.collate(raw);
  ASSERT_TRUE(batch.ok()) << batch.error().message;
  EXPECT_EQ(describe(*batch), "input_ids int64[2,3], labels int64[2,3]");
  Tensor flat = (*batch)[0];
  flat.shape = {6};
  EXPECT_EQ(*unpack_numbers({flat}, "input_ids"), (Ids{0, 1, 2, 1, 0, 0}));
  flat = (*batch)[1];
  flat.shape = {6};
  EXPECT_EQ(*unpack_numbers({flat}, "labels"), (Ids{1, 2, 0, 0, -100, -100}));
  Batch broken = raw;
  broken[2] = pack_numbers("labels", Ids{1});
  EXPECT_FALSE(data.collate(broken));
  EXPECT_FALSE(data.collate({}));
}

}  // namespace
}  // namespace bulkhead
