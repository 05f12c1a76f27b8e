#include "protocol/number_lists.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "protocol/texts.h"

namespace bulkhead {
namespace {

using Numbers = std::vector<std::int64_t>;

NumberLists lists_of(const std::vector<Numbers>& all) {
  NumberLists lists;
  for (const Numbers& list : all) lists.add(list);
  return lists;
}

std::string complaint(const Batch& batch) {
  const auto lists = NumberLists::unpack(batch, "labels");
  return lists ? "it was taken" : lists.error().message;
}

TEST(NumberLists, ComeBackAsTheyWere) {
  const std::vector<std::vector<Numbers>> cases{
      {}, {{}}, {{1}, {}, {-100, 2, 3}}, {{INT64_MIN, INT64_MAX}, Numbers(10'000, 7)}};
  for (const std::vector<Numbers>& all : cases) {
    const auto back = NumberLists::unpack(lists_of(all).pack("labels"), "labels");
    ASSERT_TRUE(back.ok()) << back.error().message;
    ASSERT_EQ(back->size(), all.size());
    for (std::size_t i = 0; i < all.size(); ++i) {
      const std::span<const std::int64_t> list = (*back)[i];
      EXPECT_EQ(Numbers(list.begin(), list.end()), all[i]);
    }
  }
}

TEST(NumberLists, AreTwoTensorsAsTheSpecificationSays) {
  const Batch batch = lists_of({{5, 6}, {}, {7}}).pack("labels");
  EXPECT_EQ(describe(batch), "labels int64[3], labels.ends int64[3]");
  EXPECT_EQ(*unpack_numbers(batch, "labels.ends"), (Numbers{2, 2, 3}));
}

TEST(NumberLists, RefuseWhatDoesNotFitTogether) {
  const Tensor values = pack_numbers("labels", Numbers{1, 2, 3});
  const auto with_ends = [&](const Numbers& ends) {
    return complaint({values, pack_numbers("labels.ends", ends)});
  };
  EXPECT_EQ(with_ends({1, 3}), "it was taken");
  EXPECT_EQ(with_ends({2, 1}),
            "\"labels.ends\" must ascend from 0 to the 3 values of \"labels\", but holds 1 behind 2");
  EXPECT_EQ(with_ends({4}),
            "\"labels.ends\" must ascend from 0 to the 3 values of \"labels\", but holds 4 behind 0");
  EXPECT_EQ(with_ends({-1, 3}),
            "\"labels.ends\" must ascend from 0 to the 3 values of \"labels\", but holds -1 behind 0");
  EXPECT_EQ(with_ends({2}), "\"labels.ends\" ends at 2, but \"labels\" has 3 values");
  EXPECT_EQ(complaint({values}), "\"labels.ends\" is not in the batch");
  EXPECT_EQ(complaint(pack_texts("labels", std::vector<std::string>{"ab"})),
            "\"labels\" must be int64 with one dimension, not uint8[2]");
}

}  // namespace
}  // namespace bulkhead
