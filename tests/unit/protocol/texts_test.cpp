#include "protocol/texts.h"

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace bulkhead {
namespace {

using Texts = std::vector<std::string>;

Tensor numbers(const std::string& name, const std::vector<std::int64_t>& values) {
  std::string bytes(values.size() * sizeof(std::int64_t), '\0');
  if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return {name, DType::kInt64, {static_cast<std::int64_t>(values.size())}, Blob::of(bytes)};
}

Tensor letters(const std::string& text) {
  return {"captions", DType::kUInt8, {static_cast<std::int64_t>(text.size())}, Blob::of(text)};
}

std::string complaint(const Batch& batch) {
  const auto texts = unpack_texts(batch, "captions");
  return texts ? "it was taken" : texts.error().message;
}

TEST(Texts, ComeBackAsTheyWere) {
  for (const Texts& texts : {Texts{}, Texts{""}, Texts{"", "", ""}, Texts{"a red ship", "", "n\u00e4her"},
                             Texts{std::string("a\0b", 3), std::string(100'000, 'x')}}) {
    const auto back = unpack_texts(pack_texts("captions", texts), "captions");
    ASSERT_TRUE(back.ok()) << back.error().message;
    EXPECT_EQ(*back, texts);
  }
}

TEST(Texts, AreTwoTensorsAsTheSpecificationSays) {
  const Batch batch = pack_texts("captions", Texts{"ab", "", "\u00e4"});
  EXPECT_EQ(describe(batch), "captions uint8[4], captions.ends int64[3]");
  EXPECT_EQ(batch[0].bytes.text(), "ab\xc3\xa4");
  EXPECT_EQ(batch[1].bytes.text(), numbers("", {2, 2, 4}).bytes.text());
}

TEST(Texts, AreFoundAmongOtherTensors) {
  Batch batch = pack_texts("captions", Texts{"a"});
  for (const Tensor& tensor : pack_texts("paths", Texts{"b/c.png"})) batch.push_back(tensor);
  EXPECT_EQ(*unpack_texts(batch, "paths"), Texts{"b/c.png"});
  EXPECT_EQ(*unpack_texts(batch, "captions"), Texts{"a"});
}

TEST(Texts, NeedBothTensorsOfTheRightType) {
  EXPECT_EQ(complaint({}), "\"captions\" is not in the batch; a list of texts needs it");
  EXPECT_EQ(complaint({letters("ab")}), "\"captions.ends\" is not in the batch; a list of texts needs it");
  EXPECT_EQ(complaint({numbers("captions", {1}), numbers("captions.ends", {1})}),
            "\"captions\" must be uint8 with one dimension, not int64[1]");
  Tensor square = numbers("captions.ends", {1, 2});
  square.shape = {1, 2};
  EXPECT_EQ(complaint({letters("ab"), square}),
            "\"captions.ends\" must be int64 with one dimension, not int64[1,2]");
}

TEST(Texts, MustEndInOrderAndWithinTheirBytes) {
  EXPECT_EQ(complaint({letters("abc"), numbers("captions.ends", {2, 1, 3})}),
            "\"captions.ends\" must ascend from 0 to the 3 bytes of \"captions\", but holds 1 behind 2");
  EXPECT_EQ(complaint({letters("abc"), numbers("captions.ends", {-1, 3})}),
            "\"captions.ends\" must ascend from 0 to the 3 bytes of \"captions\", but holds -1 behind 0");
  EXPECT_EQ(complaint({letters("abc"), numbers("captions.ends", {4})}),
            "\"captions.ends\" must ascend from 0 to the 3 bytes of \"captions\", but holds 4 behind 0");
  EXPECT_EQ(complaint({letters("abc"), numbers("captions.ends", {2})}),
            "\"captions.ends\" ends at 2, but \"captions\" has 3 bytes");
  EXPECT_EQ(complaint({letters("abc"), numbers("captions.ends", {})}),
            "\"captions.ends\" ends at 0, but \"captions\" has 3 bytes");
}

}  // namespace
}  // namespace bulkhead
