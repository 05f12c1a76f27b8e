// The small values: ids, Result, tensors, clocks.
#include <memory>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "protocol/clock.h"
#include "protocol/ids.h"
#include "protocol/log.h"
#include "protocol/result.h"
#include "protocol/tensor.h"
#include "support/fake_clock.h"

namespace bulkhead {
namespace {

// ----- Ids -----

TEST(Id, CannotBeMixedUp) {
  static_assert(!std::is_convertible_v<Generation, Seq>);
  static_assert(!std::is_convertible_v<std::int64_t, Generation>);
  static_assert(!std::is_constructible_v<WorkerId, PluginId>);
  EXPECT_EQ(Generation().value, 0);
}

TEST(Id, IsOrderedPrintableAndCounts) {
  EXPECT_LT(Generation(2), Generation(10));
  EXPECT_EQ(Seq(4).next(), Seq(5));
  std::ostringstream out;
  out << WorkerId(3);
  EXPECT_EQ(out.str(), "3");
}

// ----- Result -----

Result<std::unique_ptr<int>> half(int number) {
  if (number % 2 != 0) return Error{ErrorCode::kMismatch, "odd"};
  return std::make_unique<int>(number / 2);
}

TEST(Result, HoldsAValueOrAnError) {
  const auto good = half(4);
  ASSERT_TRUE(good.ok());
  EXPECT_EQ(**good, 2);
  const auto bad = half(3);
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error(), (Error{ErrorCode::kMismatch, "odd"}));
  EXPECT_TRUE(ok_status().ok());
}

TEST(Result, GivesItsValueAway) {
  std::unique_ptr<int> taken = half(8).value();
  EXPECT_EQ(*taken, 4);
  taken = *half(6);
  EXPECT_EQ(*taken, 3);
}

TEST(Result, CanHoldAnErrorAsAValueOfItsOwn) {
  const Result<std::string> text(std::string("fine"));
  EXPECT_EQ(text->size(), 4u);
}

TEST(ResultDeathTest, AbortsWhenTheWrongSideIsRead) {
  EXPECT_DEATH((void)*half(3), "Result read without a value: odd");
  EXPECT_DEATH((void)half(4).error(), "");
}

void check_arithmetic(int sum) {
  start_log("test");
  CHECK(1 + 1 == sum, "arithmetic");
}

TEST(CheckDeathTest, SaysWhereAndWhat) {
  EXPECT_DEATH(check_arithmetic(3), "values_test.cpp:[0-9]+: 1 \\+ 1 == sum: arithmetic");
  check_arithmetic(2);
}

TEST(ErrorCode, HasAName) {
  EXPECT_STREQ(name_of(ErrorCode::kUnavailable), "unavailable");
  EXPECT_STREQ(name_of(ErrorCode::kTimeout), "timeout");
  EXPECT_STREQ(name_of(ErrorCode::kMalformed), "malformed");
  EXPECT_STREQ(name_of(ErrorCode::kMismatch), "mismatch");
  EXPECT_STREQ(name_of(ErrorCode::kFailed), "failed");
}

// ----- Tensors -----

TEST(DType, HasTheNamesAndSizesOfNumpyAndTorch) {
  const std::vector<std::pair<std::string, std::int64_t>> known = {
      {"bool", 1},  {"uint8", 1},   {"int8", 1},     {"int16", 2},   {"int32", 4},
      {"int64", 8}, {"float16", 2}, {"bfloat16", 2}, {"float32", 4}, {"float64", 8}};
  for (const auto& [name, size] : known) {
    const Result<DType> dtype = dtype_named(name);
    ASSERT_TRUE(dtype.ok()) << name;
    EXPECT_EQ(name_of(*dtype), name);
    EXPECT_EQ(size_bytes(*dtype), size);
  }
  EXPECT_EQ(dtype_named("float8").error().message, "\"float8\" is not a tensor type");
}

TEST(Tensor, CountsItsBytes) {
  EXPECT_EQ((Tensor{"x", DType::kFloat32, {2, 3}, {}}).size_bytes(), 24);
  EXPECT_EQ((Tensor{"x", DType::kInt64, {}, {}}).size_bytes(), 8);
  EXPECT_EQ((Tensor{"x", DType::kInt64, {4, 0}, {}}).size_bytes(), 0);
}

TEST(Tensor, HasTheSchemaOfAnotherWhenNameTypeAndShapeAgree) {
  const Tensor tensor{"x", DType::kFloat32, {2, 3}, {}};
  EXPECT_TRUE(tensor.same_schema({"x", DType::kFloat32, {2, 3}, Blob::of(std::string(24, 'x'))}));
  EXPECT_FALSE(tensor.same_schema({"y", DType::kFloat32, {2, 3}, {}}));
  EXPECT_FALSE(tensor.same_schema({"x", DType::kInt32, {2, 3}, {}}));
  EXPECT_FALSE(tensor.same_schema({"x", DType::kFloat32, {3, 2}, {}}));
}

TEST(Tensor, IsDescribedForPeople) {
  EXPECT_EQ(describe({{"input_ids", DType::kInt64, {16, 256}, {}}, {"weight", DType::kBFloat16, {}, {}}}),
            "input_ids int64[16,256], weight bfloat16[]");
  EXPECT_EQ(describe({}), "");
}

TEST(Blob, KeepsItsBytesAlive) {
  Blob copy;
  {
    const Blob blob = Blob::of(std::string("short"));
    copy = blob;
  }
  EXPECT_EQ(copy.text(), "short");
  EXPECT_EQ(Blob{}.text(), "");
}

// ----- Clocks -----

TEST(FakeClock, MovesOnlyWhenToldTo) {
  FakeClock clock;
  const TimePoint start = clock.now();
  const double wall = clock.wall_seconds();
  EXPECT_EQ(clock.now(), start);
  clock.advance(std::chrono::milliseconds(1500));
  EXPECT_EQ(clock.now() - start, std::chrono::milliseconds(1500));
  EXPECT_DOUBLE_EQ(clock.wall_seconds() - wall, 1.5);
  EXPECT_FALSE(clock.is_real());
}

TEST(SteadyClock, NeverGoesBackAndKnowsTheYear) {
  const TimePoint before = steady_clock().now();
  EXPECT_GE(steady_clock().now(), before);
  EXPECT_GT(steady_clock().wall_seconds(), 1704067200.0);
  EXPECT_TRUE(steady_clock().is_real());
}

}  // namespace
}  // namespace bulkhead
