// What goes through the codec comes out the same, and old and new peers
// understand each other.
#include "protocol/codec.h"

#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "support/envelope.h"
#include "support/sample_messages.h"

namespace bulkhead {
namespace {

template <class Body>
Body round_trip(const Body& body) {
  Result<Message> decoded = decode(encode(body));
  EXPECT_TRUE(decoded.ok()) << decoded.error().message;
  return std::get<Body>(*std::move(decoded));
}

Tensor counting_tensor(std::int64_t extent) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(extent));
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 31 + i / 4096);
  return {"x", DType::kUInt8, {extent}, Blob::of(std::move(bytes))};
}

TEST(Codec, GivesBackEveryFieldOfEveryMessage) {
  for (const Message& message : all_samples()) {
    const Result<Message> decoded = decode(encode(message));
    ASSERT_TRUE(decoded.ok()) << type_of(message) << ": " << decoded.error().message;
    EXPECT_EQ(text_of(*decoded), text_of(message));
  }
}

TEST(Codec, GivesBackDefaultsToo) {
  EXPECT_EQ(text_of(round_trip(Call{})), text_of(Call{}));
  EXPECT_EQ(text_of(round_trip(Reply{})), text_of(Reply{}));
  EXPECT_EQ(text_of(round_trip(StartWorker{})), text_of(StartWorker{}));
}

TEST(Codec, CutsTensorsIntoFramesOfOneMebibyte) {
  for (const auto& [size, frames] : std::vector<std::pair<std::size_t, std::size_t>>{
           {0, 1}, {1, 2}, {kChunkBytes, 2}, {kChunkBytes + 1, 3}, {3 * kChunkBytes + 5, 5}}) {
    Call call;
    call.batch = {counting_tensor(static_cast<std::int64_t>(size))};
    EXPECT_EQ(encode(call).size(), frames) << size;
    const Call back = round_trip(call);
    EXPECT_EQ(back.batch[0].bytes.text(), call.batch[0].bytes.text()) << size;
  }
}

TEST(Codec, KeepsBytesOfSeveralTensorsAndStateApart) {
  Call call;
  call.batch = {counting_tensor(2'000'000), counting_tensor(0), counting_tensor(3)};
  call.state = Blob::of(std::string(1'500'000, 's'));
  EXPECT_EQ(text_of(round_trip(call)), text_of(call));
}

TEST(Codec, CarriesATensorWithoutDimensionsAndOneWithoutElements) {
  Reply reply;
  reply.batch = {{"scalar", DType::kFloat64, {}, Blob::of(std::string(8, 'x'))},
                 {"nothing", DType::kFloat64, {5, 0, 7}, Blob::of(std::string())}};
  const Reply back = round_trip(reply);
  EXPECT_TRUE(back.batch[0].shape.empty());
  EXPECT_EQ(back.batch[0].bytes.size, 8u);
  EXPECT_EQ(back.batch[1].shape, (std::vector<std::int64_t>{5, 0, 7}));
  EXPECT_EQ(back.batch[1].bytes.size, 0u);
}

TEST(Codec, GivesTensorsAlignedMemory) {
  Call call;
  call.batch = {counting_tensor(3), counting_tensor(5)};
  for (const Tensor& tensor : round_trip(call).batch) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(tensor.bytes.data) % 64, 0u);
  }
}

TEST(Codec, SendsTensorBytesWithoutCopyingThem) {
  Call call;
  call.batch = {counting_tensor(3 * static_cast<std::int64_t>(kChunkBytes))};
  const Frames frames = encode(call);
  EXPECT_EQ(frames[1].data, call.batch[0].bytes.data);
  EXPECT_EQ(frames[3].data, call.batch[0].bytes.data + 2 * kChunkBytes);
}

TEST(Codec, IgnoresFieldsThatANewerPeerHasAdded) {
  const Result<Message> decoded =
      decode(envelope({{"type", "stop"}, {"generation", 4}, {"reason", "r"}, {"mood", {{"deep", {1, 2}}}}}));
  ASSERT_TRUE(decoded.ok()) << decoded.error().message;
  EXPECT_EQ(std::get<Stop>(*decoded).reason, "r");
}

TEST(Codec, KeepsTheDefaultOfFieldsThatAnOlderPeerDoesNotSend) {
  const Result<Message> decoded = decode(envelope({{"type", "host_fault"}, {"kind", "hang"}}));
  ASSERT_TRUE(decoded.ok()) << decoded.error().message;
  EXPECT_EQ(std::get<HostFault>(*decoded).step, -1);
  EXPECT_EQ(std::get<HostFault>(*decoded).kind, "hang");
}

TEST(Codec, TakesNilAsAnAbsentOptional) {
  const Result<Message> decoded = decode(envelope({{"type", "reply"}, {"failure", nullptr}}));
  ASSERT_TRUE(decoded.ok()) << decoded.error().message;
  EXPECT_FALSE(std::get<Reply>(*decoded).failure.has_value());
}

TEST(Codec, TakesAWholeNumberWhereAFractionIsMeant) {
  const Result<Message> decoded = decode(envelope({{"type", "reply"}, {"seconds", 2}}));
  ASSERT_TRUE(decoded.ok()) << decoded.error().message;
  EXPECT_EQ(std::get<Reply>(*decoded).seconds, 2.0);
}

TEST(Codec, CarriesTheExtremesOfNumbers) {
  for (const std::int64_t number : {INT64_MIN, std::int64_t{-1}, std::int64_t{0}, INT64_MAX}) {
    EXPECT_EQ(round_trip(Heartbeat{.generation = {}, .step = number}).step, number);
  }
  Note note;
  note.metrics = {{"inf", HUGE_VAL}, {"small", 5e-324}, {"nan", std::nan("")}};
  const Note back = round_trip(note);
  EXPECT_EQ(back.metrics.at("inf"), HUGE_VAL);
  EXPECT_EQ(back.metrics.at("small"), 5e-324);
  EXPECT_TRUE(std::isnan(back.metrics.at("nan")));
}

}  // namespace
}  // namespace bulkhead
