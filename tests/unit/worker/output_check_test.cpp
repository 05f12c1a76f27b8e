#include "output_check.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include <gtest/gtest.h>

namespace bulkhead {
namespace {

Tensor floats(const std::string& name, float value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return {name, DType::kFloat32, {1}, Blob::of(std::move(bytes))};
}

Tensor half(std::uint16_t bits) {
  std::string bytes(sizeof bits, '\0');
  std::memcpy(bytes.data(), &bits, sizeof bits);
  return {"h", DType::kFloat16, {1}, Blob::of(std::move(bytes))};
}

TEST(OutputCheck, PutsTheOutputTogetherInTheInputsOrder) {
  const Batch input{floats("a", 1), floats("b", 2), floats("c", 3)};
  const auto output = assemble_output(input, {floats("new", 9), floats("a", 5)}, {"c"});
  ASSERT_TRUE(output.ok());
  EXPECT_EQ(describe(*output), "a float32[1], c float32[1], new float32[1]");
}

TEST(OutputCheck, RefusesToKeepWhatTheInputDoesNotHave) {
  const auto output = assemble_output({floats("a", 1)}, {}, {"z"});
  ASSERT_FALSE(output.ok());
  EXPECT_EQ(output.error().message, "the output keeps \"z\", which the input does not have");
}

TEST(OutputCheck, RefusesATensorTwice) {
  EXPECT_FALSE(assemble_output({floats("a", 1)}, {floats("a", 2)}, {"a"}).ok());
}

TEST(OutputCheck, TakesPiecesOfTheInputWithItsMemory) {
  const Batch input{floats("a", 1), floats("b", 2)};
  Batch changed;
  ASSERT_TRUE(add_pieces(input, {{"b", "a", 0, DType::kFloat32, {1, 1}, {1, 1}}}, changed).ok());
  const auto output = assemble_output(input, changed, {"a"});
  ASSERT_TRUE(output.ok());
  EXPECT_EQ(describe(*output), "a float32[1], b float32[1,1]");
  EXPECT_EQ(output->at(1).bytes.data, input[0].bytes.data);
}

TEST(OutputCheck, RefusesPiecesThatAreNone) {
  const Batch input{floats("a", 1)};
  Batch changed{floats("b", 3)};
  const auto refusal = [&](const char* name, const char* of, std::int64_t offset) {
    const Status added = add_pieces(input, {{name, of, offset, DType::kFloat32, {1}, {1}}}, changed);
    return added ? "" : added.error().message;
  };
  EXPECT_EQ(refusal("c", "z", 0), "\"c\" is a piece of \"z\", which the input does not have");
  EXPECT_EQ(refusal("b", "a", 0), "the output holds \"b\" twice");
  EXPECT_EQ(refusal("c", "a", 4), "\"c\" reaches beyond \"a\", of which it is a piece");
}

TEST(OutputCheck, ComparesShapesOnlyOnceAGoodBatchHasBeenSeen) {
  Tensor longer = floats("a", 1);
  longer.shape = {1, 1};
  EXPECT_EQ(check_schema({floats("a", 1)}, {longer}, false), "");
  EXPECT_EQ(check_schema({floats("a", 1)}, {longer}, true),
            "the batch came back as {a float32[1,1]}, not as {a float32[1]}");
}

TEST(OutputCheck, HoldsAnOutputToThoseOfInputsOfItsShape) {
  const auto rows = [](std::int64_t count, std::int64_t width) {
    Tensor tensor = floats("a", 1);
    tensor.shape = {count, width};
    return Batch{tensor};
  };
  GoodOutputs good;
  EXPECT_EQ(good.check(rows(64, 4), rows(64, 2), false), "") << "nothing is known yet";
  good.accept(rows(64, 4), rows(64, 2), false);
  EXPECT_EQ(good.check(rows(64, 4), rows(64, 2), false), "");
  EXPECT_EQ(good.check(rows(64, 4), rows(64, 4), false),
            "the batch came back as {a float32[64,4]}, not as {a float32[64,2]}");
  EXPECT_EQ(good.check(rows(64, 4), rows(64, 4), true), "");
  EXPECT_EQ(good.check(rows(8, 4), rows(8, 2), false), "") << "the last batch of a split is shorter";
  good.accept(rows(8, 4), rows(8, 2), false);
  EXPECT_NE(good.check(rows(8, 4), rows(64, 2), false), "");
  EXPECT_NE(good.check(rows(64, 4), rows(8, 2), false), "") << "the longer one is known as before";
  EXPECT_NE(good.check(rows(9, 4), {floats("b", 1)}, false), "") << "names always count";
}

TEST(OutputCheck, FindsNansAndInfinitiesOfEveryFloatType) {
  EXPECT_EQ(check_finite({floats("a", 1.5F)}), "");
  EXPECT_EQ(check_finite({floats("a", std::nanf(""))}), "\"a\" holds a NaN or an infinity");
  EXPECT_NE(check_finite({floats("a", -std::numeric_limits<float>::infinity())}), "");
  EXPECT_EQ(check_finite({half(0x7BFF)}), "");
  EXPECT_NE(check_finite({half(0xFC00)}), "");
}

TEST(OutputCheck, MakesTextsOfALyingHostFitForFiles) {
  EXPECT_EQ(readable("grüße"), "grüße");
  EXPECT_EQ(readable(std::string("a\xFF") + "b"),
            "a\xEF\xBF\xBD"
            "b");
  EXPECT_LE(readable(std::string(std::size_t{1} << 20, 'x')).size(), std::size_t{64} << 10);
}

}  // namespace
}  // namespace bulkhead
