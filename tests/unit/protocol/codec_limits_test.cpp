// What decode() does not let in, and what it says about it.
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "protocol/codec.h"
#include "protocol/log.h"
#include "support/envelope.h"
#include "support/sample_messages.h"

namespace bulkhead {
namespace {

// Empty when the message is let in.
std::string complaint(const Frames& frames) {
  const Result<Message> decoded = decode(frames);
  if (decoded) return {};
  EXPECT_EQ(decoded.error().code, ErrorCode::kMalformed);
  return decoded.error().message;
}

Frames with_frames(Frames frames, const std::vector<std::size_t>& sizes) {
  for (const std::size_t size : sizes) frames.push_back(Blob::of(std::string(size, 'x')));
  return frames;
}

Frames one_tensor(const Value& shape, const std::vector<std::size_t>& sizes, const Value& dtype = "float32") {
  const Value tensor = {{"name", "x"}, {"dtype", dtype}, {"shape", shape}};
  return with_frames(envelope({{"type", "call"}, {"batch", Value::array({tensor})}}), sizes);
}

Value nested(std::size_t depth) {
  Value value = 1;
  for (std::size_t i = 0; i < depth; ++i) value = Value::array({std::move(value)});
  return value;
}

TEST(CodecLimits, NamesTheFieldThatHasAWrongType) {
  const std::vector<std::pair<Value, std::string>> cases = {
      {{{"type", "stop"}, {"reason", 5}}, "reason must be a string"},
      {{{"type", "heartbeat"}, {"step", "5"}}, "step must be a 64-bit signed integer"},
      {{{"type", "heartbeat"}, {"step", 2.0}}, "step must be a 64-bit signed integer"},
      {{{"type", "heartbeat"}, {"step", std::numeric_limits<std::uint64_t>::max()}},
       "step must be a 64-bit signed integer"},
      {{{"type", "heartbeat"}, {"generation", nullptr}}, "generation must be a 64-bit signed integer"},
      {{{"type", "reply"}, {"control", {{"stop", 1}}}}, "control.stop must be a boolean"},
      {{{"type", "reply"}, {"control", Value::array()}}, "control must be a map"},
      {{{"type", "reply"}, {"kept", "x"}}, "kept must be an array"},
      {{{"type", "reply"}, {"kept", Value::array({1})}}, "kept must be a string"},
      {{{"type", "reply"}, {"failure", {{"traceback", false}}}}, "failure.traceback must be a string"},
      {{{"type", "reply"}, {"state", {{"size", 3}}}}, "state has no \"bytes\""},
      {{{"type", "reply"}, {"state", {{"bytes", -3}}}}, "state has a negative size"},
      {{{"type", "note"}, {"metrics", Value::array()}}, "metrics must be a map"},
      {{{"type", "note"}, {"metrics", {{"loss", "low"}}}}, "metrics must be a 64-bit signed integer"},
      {{{"type", "load"}, {"config", {{"on_failure", {{"restarts", {}}}}}}},
       "config.on_failure.restarts must be a 64-bit signed integer"},
      {{{"type", "metrics_line"}, {"fields", Value::binary({1, 2})}},
       "fields has a type that is not carried"},
  };
  for (const auto& [value, expected] : cases) EXPECT_EQ(complaint(envelope(value)), expected) << value;
}

TEST(CodecLimits, RefusesWhatIsNoEnvelope) {
  EXPECT_EQ(complaint({}), "no frame");
  EXPECT_EQ(complaint({Blob{}}), complaint({Blob::of(std::string())}));
  EXPECT_NE(complaint({Blob{}}), "");
  EXPECT_EQ(complaint(envelope(5)), "the envelope is not a map");
  EXPECT_EQ(complaint(envelope({{"generation", 1}})), "the envelope has no type");
  EXPECT_EQ(complaint(envelope({{"type", 7}})), "the envelope has no type");
  EXPECT_EQ(complaint(envelope({{"type", "helo"}})), "\"helo\" is not a message type");
  EXPECT_LT(complaint(envelope({{"type", std::string(100'000, 'x')}})).size(), 200u);
  const std::string stop(encode(Stop{})[0].text());
  EXPECT_EQ(complaint({Blob::of(stop + "x")}), "bytes are left over after the envelope");
}

TEST(CodecLimits, RefusesTooLargeAFrameAndTooManyFrames) {
  EXPECT_EQ(complaint({Blob::of(std::string(kMaxFrameBytes + 1, 'x'))}), "a frame is too large");
  EXPECT_EQ(complaint(Frames(kMaxFrames + 1)), "too many frames");
}

TEST(CodecLimits, RefusesTooLongAStringAndTooManyItems) {
  const auto with = [](const Value& fields) {
    return complaint(envelope({{"type", "metrics_line"}, {"fields", fields}}));
  };
  EXPECT_EQ(with(std::string(kMaxTextBytes, 'x')), "");
  EXPECT_NE(with(std::string(kMaxTextBytes + 1, 'x')), "");
  EXPECT_EQ(with(std::vector<int>(kMaxItems, 1)), "");
  EXPECT_NE(with(std::vector<int>(kMaxItems + 1, 1)), "");
  EXPECT_EQ(with(nested(kMaxDepth - 2)), "");
  EXPECT_NE(with(nested(kMaxDepth + 1)), "");
}

TEST(CodecLimits, IsNotMovedByLengthsThatAreOnlyClaimed) {
  // An array, a map, a string and bytes of 4 Gi elements, of which none comes.
  for (const char* claim :
       {"\xdd\xff\xff\xff\xff", "\xdf\xff\xff\xff\xff", "\xdb\xff\xff\xff\xff", "\xc6\xff\xff\xff\xff"}) {
    EXPECT_NE(complaint({Blob::of(std::string(claim))}), "");
  }
}

TEST(CodecLimits, RefusesTensorsBeyondTheirLimits) {
  EXPECT_EQ(complaint(one_tensor(Value::array({1, 1, 1, 1, 1, 1, 1, 1}), {4})), "");
  EXPECT_EQ(complaint(one_tensor(Value::array({1, 1, 1, 1, 1, 1, 1, 1, 1}), {4})),
            "batch has too many dimensions");
  EXPECT_EQ(complaint(one_tensor(Value::array({-1}), {4})), "batch has a negative extent");
  EXPECT_EQ(complaint(one_tensor(Value::array({1}), {4}, "complex64")),
            "batch \"complex64\" is not a tensor type");
  EXPECT_EQ(complaint(one_tensor(Value::array({1}), {4}, 3)), "batch must be a string");

  const Value tensor = {{"name", "x"}, {"dtype", "bool"}, {"shape", Value::array({0})}};
  EXPECT_EQ(complaint(envelope({{"type", "call"}, {"batch", std::vector<Value>(kMaxTensors, tensor)}})), "");
  EXPECT_EQ(complaint(envelope({{"type", "call"}, {"batch", std::vector<Value>(kMaxTensors + 1, tensor)}})),
            "batch holds too many tensors");
  EXPECT_EQ(complaint(envelope({{"type", "call"}, {"batch", Value::array({{{"name", "x"}}})}})),
            "batch needs name, dtype and shape");
}

TEST(CodecLimits, RefusesShapesWhoseSizeOverflows) {
  const std::int64_t big = std::int64_t{1} << 32;
  EXPECT_EQ(complaint(one_tensor(Value::array({big, big}), {})), "batch is too large");
  EXPECT_EQ(complaint(one_tensor(Value::array({INT64_MAX}), {})), "batch is too large");
  EXPECT_EQ(complaint(one_tensor(Value::array({INT64_MAX}), {}, "bool")),
            "batch has fewer frames than its size says");
  EXPECT_EQ(complaint(with_frames(envelope({{"type", "reply"}, {"state", {{"bytes", INT64_MAX}}}}), {8})),
            "state has fewer frames than its size says");
}

TEST(CodecLimits, RefusesBytesThatDoNotFitTheirShape) {
  EXPECT_EQ(complaint(one_tensor(Value::array({2}), {8})), "");
  EXPECT_EQ(complaint(one_tensor(Value::array({2}), {})), "batch has fewer frames than its size says");
  EXPECT_EQ(complaint(one_tensor(Value::array({2}), {7})),
            "batch has frames of another size than its shape says");
  EXPECT_EQ(complaint(one_tensor(Value::array({2}), {9})),
            "batch has frames of another size than its shape says");
  EXPECT_EQ(complaint(one_tensor(Value::array({2}), {8, 1})), "frames are left over");
  EXPECT_EQ(complaint(one_tensor(Value::array({0}), {0})), "frames are left over");
  EXPECT_EQ(complaint(with_frames(encode(Stop{}), {1})), "frames are left over");
}

void encode_and_log(const Message& message) {
  start_log("test");
  encode(message);
}

TEST(CodecLimitsDeathTest, EncodingBeyondALimitIsOurBug) {
  Stop stop;
  stop.reason = std::string(kMaxTextBytes + 1, 'x');
  EXPECT_DEATH(encode_and_log(stop), "a string of 1048577 bytes");
  Call call;
  call.batch = Batch(kMaxTensors + 1, Tensor{"x", DType::kBool, {0}, {}});
  EXPECT_DEATH(encode_and_log(call), "an array of 4097 items");
  call.batch = {Tensor{"deep", DType::kBool, std::vector<std::int64_t>(kMaxDims + 1, 0), {}}};
  EXPECT_DEATH(encode_and_log(call), "deep");
  call.batch = {Tensor{"two", DType::kFloat32, {2}, Blob::of(std::string(7, 'x'))}};
  EXPECT_DEATH(encode_and_log(call), "two");
}

}  // namespace
}  // namespace bulkhead
