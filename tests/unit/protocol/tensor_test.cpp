#include "protocol/tensor.h"

#include <array>
#include <cstring>
#include <limits>

#include <gtest/gtest.h>

namespace bulkhead {
namespace {

constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();

// int32 0, 1, 2, … in a shape.
Tensor counted(std::vector<std::int64_t> shape) {
  Tensor tensor{"x", DType::kInt32, std::move(shape), {}};
  std::vector<std::byte> bytes(static_cast<std::size_t>(tensor.size_bytes()));
  for (std::int32_t i = 0; i < static_cast<std::int32_t>(bytes.size() / 4); ++i)
    std::memcpy(bytes.data() + 4 * i, &i, 4);
  tensor.bytes = Blob::of(std::move(bytes));
  return tensor;
}

std::vector<std::int32_t> elements(const Tensor& tensor) {
  const Tensor rows = dense(tensor);
  std::vector<std::int32_t> values(rows.bytes.size / 4);
  std::memcpy(values.data(), rows.bytes.data, rows.bytes.size);
  return values;
}

TEST(TensorPieces, AreCutOutOfTheirWholeWithoutACopy) {
  const Tensor whole = counted({3, 4});
  const auto column = cut(whole, {"c", "x", 4, DType::kInt32, {3}, {4}});
  ASSERT_TRUE(column.ok()) << column.error().message;
  EXPECT_EQ(column->bytes.data, whole.bytes.data + 4);
  EXPECT_EQ(column->bytes.size, 36U);
  EXPECT_EQ(elements(*column), (std::vector<std::int32_t>{1, 5, 9}));
  const auto turned = cut(whole, {"t", "x", 0, DType::kInt32, {4, 3}, {1, 4}});
  ASSERT_TRUE(turned.ok());
  EXPECT_EQ(elements(*turned), (std::vector<std::int32_t>{0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11}));
}

TEST(TensorPieces, AreDenseWhereTheirElementsLieSo) {
  const Tensor whole = counted({3, 4});
  const auto rows = cut(whole, {"r", "x", 16, DType::kInt32, {2, 4}, {4, 1}});
  ASSERT_TRUE(rows.ok());
  EXPECT_TRUE(rows->strides.empty());
  EXPECT_EQ(elements(*rows), (std::vector<std::int32_t>{4, 5, 6, 7, 8, 9, 10, 11}));
  const auto one = cut(whole, {"o", "x", 44, DType::kInt32, {}, {}});
  ASSERT_TRUE(one.ok());
  EXPECT_EQ(elements(*one), std::vector<std::int32_t>{11});
  const auto none = cut(whole, {"n", "x", 48, DType::kInt32, {0, 5}, {9, 9}});
  ASSERT_TRUE(none.ok());
  EXPECT_EQ(none->bytes.size, 0U);
  EXPECT_TRUE(none->strides.empty());
}

TEST(TensorPieces, RepeatTheirElementsWhereAStrideIsZero) {
  const auto repeated = cut(counted({2}), {"r", "x", 4, DType::kInt32, {3}, {0}});
  ASSERT_TRUE(repeated.ok());
  EXPECT_EQ(elements(*repeated), (std::vector<std::int32_t>{1, 1, 1}));
}

TEST(TensorPieces, AreRefusedWhereTheyReachBeyondOrCannotBe) {
  const Tensor whole = counted({3, 4});
  const auto refusal = [&](std::int64_t offset, std::vector<std::int64_t> shape,
                           std::vector<std::int64_t> strides, DType dtype = DType::kInt32) {
    const auto piece = cut(whole, {"p", "x", offset, dtype, std::move(shape), std::move(strides)});
    return piece.ok() ? "" : piece.error().message;
  };
  const std::string beyond = "\"p\" reaches beyond \"x\", of which it is a piece";
  EXPECT_EQ(refusal(0, {13}, {1}), beyond);
  EXPECT_EQ(refusal(4, {3, 4}, {4, 1}), beyond);
  EXPECT_EQ(refusal(-4, {1}, {1}), beyond);
  EXPECT_EQ(refusal(52, {0}, {1}), beyond);
  EXPECT_EQ(refusal(2, {1}, {1}), "\"p\" is not aligned");
  EXPECT_EQ(refusal(0, {1}, {1}, DType::kFloat32), "\"p\" is a piece of another type than \"x\"");
  EXPECT_EQ(refusal(0, {1}, {}), "\"p\" has strides that do not fit its shape");
  EXPECT_EQ(refusal(0, {-1}, {1}), "\"p\" has a negative extent or stride");
  EXPECT_EQ(refusal(4, {2}, {-1}), "\"p\" has a negative extent or stride");
  EXPECT_EQ(refusal(0, {kMost, 2}, {kMost, 1}), "\"p\" is too large");
  EXPECT_EQ(refusal(0, {kMost, kMost}, {0, 0}), "\"p\" is too large");
  EXPECT_EQ(refusal(0, {2, 2}, {kMost, kMost}), "\"p\" is too large");
}

}  // namespace
}  // namespace bulkhead
