// Batches to the wire and back without a copy, and what is refused.
#include "batch.h"

#include <cstring>

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

namespace bulkhead {
namespace {

constexpr at::ScalarType kAllTypes[] = {at::kBool, at::kByte, at::kChar,     at::kShort, at::kInt,
                                        at::kLong, at::kHalf, at::kBFloat16, at::kFloat, at::kDouble};

Tensor int32_tensor(std::size_t offset_bytes) {
  std::vector<std::byte> bytes(64);
  const std::int32_t values[] = {1, 2, 3};
  std::memcpy(bytes.data() + offset_bytes, values, sizeof(values));
  Tensor wire{"x", DType::kInt32, {3}, Blob::of(std::move(bytes))};
  wire.bytes.data += offset_bytes;
  wire.bytes.size = sizeof(values);
  return wire;
}

TEST(Batch, RoundTripsEveryTypeWithoutACopy) {
  for (const at::ScalarType type : kAllTypes) {
    const at::Tensor tensor = at::arange(6, at::kLong).remainder(2).to(type).view({2, 3});
    const auto wire = to_wire({{"x", tensor}});
    ASSERT_EQ(wire.size(), 1U);
    EXPECT_EQ(wire[0].shape, (std::vector<std::int64_t>{2, 3}));
    EXPECT_EQ(static_cast<const void*>(wire[0].bytes.data), tensor.const_data_ptr()) << c10::toString(type);
    const auto back = from_wire(wire);
    ASSERT_TRUE(back) << back.error().message;
    const at::Tensor& value = tensor_named(*back, "x");
    EXPECT_EQ(value.scalar_type(), type);
    EXPECT_EQ(value.const_data_ptr(), tensor.const_data_ptr());
    EXPECT_TRUE(at::equal(value, tensor));
  }
}

TEST(Batch, KeepsTheBytesAliveOnBothSides) {
  Batch wire;
  {
    const at::Tensor tensor = at::arange(4, at::kLong);
    wire = to_wire({{"x", tensor}});
  }
  auto back = from_wire(wire);
  ASSERT_TRUE(back);
  std::weak_ptr<const void> owner = wire[0].bytes.owner;
  wire.clear();
  EXPECT_FALSE(owner.expired());
  EXPECT_TRUE(at::equal(back->front().value, at::arange(4, at::kLong)));
  back->clear();
  EXPECT_TRUE(owner.expired());
}

TEST(Batch, CopiesAStridedTensorIntoRowMajorOrder) {
  const at::Tensor tensor = at::arange(6, at::kLong).view({2, 3}).transpose(0, 1);
  const auto back = from_wire(to_wire({{"x", tensor}}));
  ASSERT_TRUE(back);
  EXPECT_TRUE(at::equal(back->front().value, tensor));
}

TEST(Batch, CarriesEmptyAndZeroDimensionalTensors) {
  const at::Tensor scalar = at::arange(1, at::kFloat).squeeze();
  const auto back = from_wire(to_wire({{"empty", at::empty({0, 3}, at::kFloat)}, {"scalar", scalar}}));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(tensor_named(*back, "empty").sizes(), (at::IntArrayRef{0, 3}));
  EXPECT_EQ(tensor_named(*back, "scalar").dim(), 0);
}

TEST(Batch, ReadsMisalignedBytes) {
  const auto back = from_wire({int32_tensor(1)});
  ASSERT_TRUE(back);
  EXPECT_TRUE(at::equal(back->front().value, at::arange(1, 4, at::kInt)));
}

TEST(Batch, RefusesBytesThatDoNotFillTheShape) {
  auto wire = int32_tensor(0);
  wire.shape = {4};
  EXPECT_EQ(from_wire({wire}).error().message, "tensor 'x' holds 12 bytes, not what its shape asks for");
  wire.shape = {-3};
  EXPECT_FALSE(from_wire({wire}));
  wire.shape = {std::int64_t{1} << 62, std::int64_t{1} << 62};
  EXPECT_FALSE(from_wire({wire}));
}

TEST(Batch, RefusesABoolThatIsNeitherZeroNorOne) {
  const Tensor wire{"mask", DType::kBool, {3}, Blob::of(std::string("\0\1\2", 3))};
  EXPECT_EQ(from_wire({wire}).error().message, "tensor 'mask' holds a bool that is neither 0 nor 1");
}

TEST(Batch, FindsTensorsByName) {
  const TensorBatch batch{{"a", at::empty({1})}, {"b", at::empty({2})}};
  EXPECT_EQ(find_tensor(batch, "b")->size(0), 2);
  EXPECT_EQ(find_tensor(batch, "c"), nullptr);
}

TEST(Batch, TakesPiecesAsTheyLie) {
  const at::Tensor whole = at::arange(12, at::kInt).view({3, 4});
  const Batch wire = to_wire({{"x", whole}});
  const auto back = from_wire({*cut(wire[0], {"t", "x", 0, DType::kInt32, {4, 3}, {1, 4}})});
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->at(0).value.const_data_ptr(), whole.const_data_ptr());
  EXPECT_TRUE(at::equal(back->at(0).value, whole.t()));
}

TEST(BatchMemory, IsSharedMemoryThatToWireKnowsAgain) {
  BatchMemory memory(std::size_t{64} << 20);
  for (const auto& [type, access] :
       {std::pair(at::kFloat, PeerAccess::kWrite), std::pair(at::kLong, PeerAccess::kRead)}) {
    const at::Tensor tensor = memory.empty({100, 100}, type).fill_(7);
    const Batch wire = to_wire({{"x", tensor}});
    EXPECT_EQ(static_cast<const void*>(wire[0].bytes.data), tensor.const_data_ptr());
    ASSERT_NE(wire[0].bytes.segment, nullptr);
    EXPECT_EQ(wire[0].bytes.segment->access(), access) << c10::toString(type);
  }
}

TEST(BatchMemory, IsFreeAgainWithTheLastWhoHasIt) {
  BatchMemory memory(std::size_t{64} << 20);
  Batch wire = to_wire({{"x", memory.empty({1 << 20}, at::kFloat)}});
  const std::byte* first = wire[0].bytes.data;
  EXPECT_NE(memory.empty({1 << 20}, at::kFloat).const_data_ptr(), first) << "the wire has it";
  wire.clear();
  EXPECT_EQ(memory.empty({1 << 20}, at::kFloat).const_data_ptr(), static_cast<const void*>(first));
}

TEST(BatchMemory, IsOrdinaryMemoryForSmallTensorsAndWhereItIsFull) {
  BatchMemory memory(std::size_t{8} << 20);
  EXPECT_EQ(to_wire({{"x", memory.empty({8}, at::kFloat)}})[0].bytes.segment, nullptr);
  const at::Tensor large = memory.empty({1 << 22}, at::kFloat).fill_(1);
  EXPECT_EQ(to_wire({{"x", large}})[0].bytes.segment, nullptr);
  EXPECT_EQ(large[(1 << 22) - 1].item<float>(), 1);
}

}  // namespace
}  // namespace bulkhead
