// What a host is lent of the rank's GPU, and what of its answers is believed.
#include "device_lender.h"

#include <cstring>
#include <functional>

#include <gtest/gtest.h>

#include "protocol/codec.h"
#include "support/stand_in_gpu.h"

namespace bulkhead {
namespace {

Tensor floats(const std::string& name, std::vector<std::int64_t> shape, float value) {
  Tensor tensor{name, DType::kFloat32, std::move(shape), {}};
  std::vector<float> all(static_cast<std::size_t>(tensor.size_bytes() / 4), value);
  tensor.bytes = Blob::of(std::string(reinterpret_cast<const char*>(all.data()), all.size() * 4));
  return tensor;
}

struct Lending : testing::Test {
  StandInGpu gpu;
  DeviceLender lender{gpu.memory};

  Call lent(std::int64_t seq = 1) {
    Call call;
    call.seq = Seq(seq);
    call.batch = {floats("x", {4, 100}, 2), {"ids", DType::kInt64, {3}, Blob::of(std::string(24, '\1'))}};
    call.writable = {"x"};
    EXPECT_TRUE(lender.lend(call).ok());
    return call;
  }
  float* opened(const Call& call, std::size_t tensor) {
    std::byte* begin = gpu.open(call.region->memory);
    return reinterpret_cast<float*>(begin + call.region->tensors.at(tensor).offset);
  }
  Reply reply(const Call& call, std::vector<Piece> in_region) {
    Reply reply;
    reply.seq = call.seq;
    reply.in_region = std::move(in_region);
    return reply;
  }
};

TEST_F(Lending, ACallSaysWhereItsInputLiesInsteadOfCarryingIt) {
  const Call call = lent();
  EXPECT_TRUE(call.batch.empty());
  EXPECT_TRUE(call.writable.empty());
  ASSERT_EQ(call.region->tensors.size(), 2u);
  EXPECT_EQ(call.region->tensors[1].name, "ids");
  EXPECT_EQ(call.region->tensors[1].offset % 256, 0);
  EXPECT_FLOAT_EQ(opened(call, 0)[399], 2);
  EXPECT_EQ(encode(call).size(), 1u);  // no bytes
}

TEST_F(Lending, WhatWasChangedWhereItLayComesBackAsACopyOnTheGpu) {
  const Call call = lent();
  opened(call, 0)[0] = 5;
  Reply answer = reply(call, {call.region->tensors[0]});
  ASSERT_TRUE(lender.take(answer, false).ok());
  opened(call, 0)[0] = 9;  // too late
  ASSERT_EQ(answer.batch.size(), 1u);
  EXPECT_NE(answer.batch[0].bytes.device, nullptr);
  EXPECT_TRUE(answer.in_region.empty());
  const Batch here = in_host_memory(answer.batch);
  float first = 0;
  std::memcpy(&first, here[0].bytes.data, 4);
  EXPECT_FLOAT_EQ(first, 5);
}

TEST_F(Lending, WhatMustBeCheckedComesToHostMemory) {
  const Call call = lent();
  Piece ids = call.region->tensors[1];
  Reply answer = reply(call, {ids});
  ASSERT_TRUE(lender.take(answer, false).ok());
  EXPECT_EQ(answer.batch[0].bytes.device, nullptr);
  EXPECT_EQ(answer.batch[0].bytes.text(), std::string(24, '\1'));
  const Call second = lent(2);
  Reply all = reply(second, {second.region->tensors[0]});
  ASSERT_TRUE(lender.take(all, true).ok());
  EXPECT_EQ(all.batch[0].bytes.device, nullptr);
}

TEST_F(Lending, APermutedOutputKeepsItsStrides) {
  const Call call = lent();
  Piece turned = call.region->tensors[0];
  turned.shape = {100, 4};
  turned.strides = {1, 100};
  Reply answer = reply(call, {turned});
  ASSERT_TRUE(lender.take(answer, false).ok());
  EXPECT_EQ(answer.batch[0].strides, turned.strides);
  EXPECT_EQ(dense(in_host_memory(answer.batch)[0]).bytes.size, 1600u);
}

TEST_F(Lending, ALieIsMalformedInASentence) {
  const std::vector<std::pair<std::function<void(Piece&)>, std::string>> lies = {
      {[](Piece& piece) { piece.offset = -4; }, "\"x\" lies beyond the end of its region"},
      {[](Piece& piece) { piece.offset = std::int64_t{4} << 20; }, "\"x\" lies beyond the end of its region"},
      {[](Piece& piece) { piece.offset = INT64_MAX; }, "\"x\" lies beyond the end of its region"},
      {[](Piece& piece) { piece.offset = 2; }, "\"x\" is not aligned"},
      {[](Piece& piece) {
         piece.shape = {4, 1'000'000};
       },
       "\"x\" has more elements than its region has room for"},
      {[](Piece& piece) {
         piece.strides = {1'000'000, 1};
       },
       "\"x\" lies beyond the end of its region"},
      {[](Piece& piece) {
         piece.strides = {INT64_MAX, INT64_MAX};
       },
       "\"x\" is too large"},
      {[](Piece& piece) {
         piece.strides = {-100, 1};
       },
       "\"x\" has a negative extent or stride"},
      {[](Piece& piece) { piece.strides = {1}; }, "\"x\" has strides that do not fit its shape"},
      {[](Piece& piece) { piece.shape.assign(9, 1), piece.strides.assign(9, 1); },
       "\"x\" has too many dimensions"},
      {[](Piece& piece) {
         piece.shape = {INT64_MAX, INT64_MAX}, piece.strides = {0, 0};
       },
       "\"x\" is too large"},
      {[](Piece& piece) {
         piece.shape = {1 << 20, 1 << 20}, piece.strides = {0, 0};
       },
       "\"x\" has more elements than its region has room for"},
  };
  std::int64_t seq = 0;
  for (const auto& [lie, sentence] : lies) {
    const Call call = lent(++seq);
    Piece piece = call.region->tensors[0];
    lie(piece);
    Reply answer = reply(call, {piece});
    const Status taken = lender.take(answer, false);
    ASSERT_FALSE(taken.ok()) << sentence;
    EXPECT_EQ(taken.error().code, ErrorCode::kMalformed);
    EXPECT_EQ(taken.error().message, sentence);
  }
  Call call = lent(++seq);
  Reply twice = reply(call, {call.region->tensors[0], call.region->tensors[0]});
  EXPECT_EQ(lender.take(twice, false).error().message, "the output holds \"x\" twice");
  Reply never = reply(call, {call.region->tensors[0]});
  never.seq = Seq(99);
  EXPECT_EQ(lender.take(never, false).error().message, "its output lies in a region that it was not lent");
}

TEST_F(Lending, ARegionIsUsedAgainButNotWhileItIsHeld) {
  const Call first = lent(1);
  Reply holding = reply(first, {});
  holding.held = {{first.region->segment, 0}};
  ASSERT_TRUE(lender.take(holding, false).ok());
  EXPECT_TRUE(holding.held.empty());
  const Call second = lent(2);
  EXPECT_NE(second.region->segment, first.region->segment);
  EXPECT_FALSE(lender.given_back({second.region->segment, 0}));  // it is in a call
  EXPECT_TRUE(lender.given_back({first.region->segment, 0}));
  EXPECT_FALSE(lender.given_back({first.region->segment, 0}));
  EXPECT_EQ(lent(3).region->segment, first.region->segment);
}

TEST_F(Lending, WithoutRoomTheCallStaysAsItWas) {
  StandInGpu small(std::size_t{1} << 20);
  DeviceLender poor{small.memory};
  Call call;
  call.batch = {floats("x", {4, 100}, 2)};
  EXPECT_EQ(poor.lend(call).error().code, ErrorCode::kUnavailable);
  EXPECT_FALSE(call.region);
  EXPECT_EQ(call.batch.size(), 1u);
}

TEST_F(Lending, AProcessThatEndedLeavesEveryRegionItHad) {
  const Call first = lent(1);
  Reply holding = reply(first, {});
  holding.held = {{first.region->segment, 0}};
  ASSERT_TRUE(lender.take(holding, false).ok());
  lent(2);
  const Call third = lent(3);
  Reply done = reply(third, {});
  ASSERT_TRUE(lender.take(done, false).ok());
  EXPECT_EQ(lender.leave().size(), 3u);
  EXPECT_TRUE(lender.leave().empty());
}

TEST_F(Lending, ATensorWithoutElementsNeedsNoPlace) {
  Call call;
  call.seq = Seq(1);
  call.batch = {floats("x", {0, 3}, 0)};
  ASSERT_TRUE(lender.lend(call).ok());
  Reply answer = reply(call, {call.region->tensors[0]});
  ASSERT_TRUE(lender.take(answer, false).ok());
  EXPECT_EQ(answer.batch[0].shape, (std::vector<std::int64_t>{0, 3}));
  EXPECT_EQ(answer.batch[0].bytes.size, 0u);
}

}  // namespace
}  // namespace bulkhead
