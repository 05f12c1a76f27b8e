// Batches to a real plugin and back: both languages, with a ring and shared
// memory and through a socket.  Whatever the way, the same comes back.
#include <algorithm>
#include <ostream>
#include <sys/resource.h>

#include <gtest/gtest.h>

#include "protocol/rng.h"
#include "support/real_host.h"

namespace bulkhead {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

struct Way {
  std::string language, transport, how;

  friend std::ostream& operator<<(std::ostream& out, const Way& way) {
    return out << way.language << '_' << way.transport << '_' << way.how;
  }
};

PluginConfig python_plugin(const std::string& class_name, const std::string& transport) {
  PluginConfig config;
  config.name = class_name;
  config.language = "python";
  config.file = BULKHEAD_SOURCE_DIR "/tests/support/plugins/tensors.py";
  config.class_name = class_name;
  config.transport = transport;
  return config;
}

PluginConfig inverting(const Way& way) {
  PluginConfig config = python_plugin("Tensors", way.transport);
  if (way.language == "cpp") {
    config.language = "cpp";
    config.file = BULKHEAD_BUILD_DIR "/tests/plugins/tensors.so";
    config.class_name.clear();
  }
  config.with["how"] = way.how;
  return config;
}

// Bytes that depend on `seed`; bools are 0 and 1.
Tensor tensor(std::string name, DType dtype, std::vector<std::int64_t> shape, int seed = 0) {
  Tensor made{std::move(name), dtype, std::move(shape), {}};
  std::vector<std::byte> bytes(static_cast<std::size_t>(made.size_bytes()));
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const std::size_t value = i * 167 + i / 251 + static_cast<std::size_t>(seed) * 59 + bytes.size();
    bytes[i] = static_cast<std::byte>(dtype == DType::kBool ? value & 1 : value & 0xFF);
  }
  made.bytes = Blob::of(std::move(bytes));
  return made;
}

void expect_inverted(const Batch& in, const Batch& out) {
  ASSERT_EQ(in.size(), out.size());
  for (std::size_t t = 0; t < in.size(); ++t) {
    ASSERT_TRUE(out[t].same_schema(in[t])) << in[t].name << " became " << describe({out[t]});
    ASSERT_EQ(out[t].bytes.size, in[t].bytes.size);
    const auto mask = static_cast<std::byte>(in[t].dtype == DType::kBool ? 1 : 0xFF);
    const auto* expected = in[t].bytes.data;
    EXPECT_TRUE(std::equal(expected, expected + in[t].bytes.size, out[t].bytes.data,
                           [&](std::byte a, std::byte b) { return (a ^ mask) == b; }))
        << in[t].name << " of " << describe({in[t]});
  }
}

// A rank's loop and arena, and what it says of an answer.
struct Rank {
  explicit Rank(std::size_t arena_bytes = std::size_t{1} << 30) : arena(arena_bytes) {}

  EventLoop loop;
  Arena arena;
};

Batch answer_of(RealHost& host, const Batch& batch) {
  const std::optional<Outcome> outcome = host.call("transform_train_batch", batch);
  EXPECT_TRUE(outcome.has_value()) << host.fault();
  if (!outcome) return {};
  EXPECT_EQ(outcome->kind, Outcome::Kind::kAnswer) << outcome->reason;
  return outcome->batch;
}

// ----- Every batch comes back -----

class DataPlane : public testing::TestWithParam<Way> {};

const DType kTypes[] = {DType::kBool,  DType::kUInt8,   DType::kInt8,     DType::kInt16,   DType::kInt32,
                        DType::kInt64, DType::kFloat16, DType::kBFloat16, DType::kFloat32, DType::kFloat64};

TEST_P(DataPlane, CarriesEveryTypeInEveryShape) {
  Rank rank;
  RealHost host(rank.loop, rank.arena, inverting(GetParam()));
  const std::vector<std::int64_t> shapes[] = {
      {}, {0}, {3, 0, 2}, {1}, {2, 1, 2, 1, 2, 1, 2, 3}, {33, 65}, {(1 << 18) + 3}};
  for (const auto& shape : shapes) {
    Batch batch;
    for (const DType type : kTypes) batch.push_back(tensor(std::string(name_of(type)), type, shape));
    SCOPED_TRACE(describe(batch));
    for (int round = 0; round < 3; ++round) expect_inverted(batch, answer_of(host, batch));
  }
}

TEST_P(DataPlane, CarriesSizesAroundEveryLimit) {
  Rank rank;
  RealHost host(rank.loop, rank.arena, inverting(GetParam()));
  for (const std::size_t bytes : {std::size_t{1}, std::size_t{4095}, std::size_t{4096}, std::size_t{4097},
                                  kMiB - 1, kMiB, kMiB + 1, 4 * kMiB + 3, 16 * kMiB + 1}) {
    const Batch batch{tensor("x", DType::kUInt8, {static_cast<std::int64_t>(bytes)})};
    const Batch out = answer_of(host, batch);
    expect_inverted(batch, out);
    const bool shared = GetParam().transport == "auto" && bytes >= 4096;
    // Integers are copied to the rank's own memory, in the arena, where they came in a host's.
    EXPECT_EQ(!out.empty() && out[0].bytes.segment != nullptr, shared) << bytes;
  }
}

TEST_P(DataPlane, KeepsAnswersWhileTheRankLooksAtThem) {
  Rank rank;
  RealHost host(rank.loop, rank.arena, inverting(GetParam()));
  std::vector<Batch> in, out;
  for (int i = 0; i < 40; ++i) {
    in.push_back({tensor("x", DType::kFloat32, {1 << 18}, i), tensor("n", DType::kInt64, {100}, i)});
    out.push_back(answer_of(host, in.back()));
  }
  for (int i = 0; i < 40; ++i) expect_inverted(in[i], out[i]);
}

TEST_P(DataPlane, SendsBytesWhereTheRankHasNoRoom) {
  Rank rank(kMiB);
  RealHost host(rank.loop, rank.arena, inverting(GetParam()));
  for (int i = 0; i < 5; ++i) {
    const Batch batch{tensor("x", DType::kFloat32, {1 << 20}, i)};
    expect_inverted(batch, answer_of(host, batch));
  }
}

TEST_P(DataPlane, AnswersInOrderWithManyCallsUnderWay) {
  Rank rank;
  RealHost host(rank.loop, rank.arena, inverting(GetParam()));
  constexpr int kCalls = 100;
  std::vector<Batch> in;
  for (int i = 0; i < kCalls; ++i) {
    in.push_back({tensor("x", DType::kFloat32, {5000}, i)});
    host.begin("transform_train_batch", in.back());
  }
  for (int ended = 0; ended < kCalls;) {
    const int now = host.wait();
    ASSERT_GT(now, 0) << host.fault();
    ended += now;
    expect_inverted(in[ended - 1], host.last().batch);
  }
}

std::vector<Way> ways() {
  std::vector<Way> all;
  for (const char* transport : {"auto", "socket"}) {
    for (const char* how : {"mutable", "new"}) all.push_back({"cpp", transport, how});
    for (const char* how : {"mutable", "new", "strided"}) all.push_back({"python", transport, how});
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(Ways, DataPlane, testing::ValuesIn(ways()), testing::PrintToStringParamName());

// ----- Hosts together, hosts in need -----

class Transport : public testing::TestWithParam<std::string> {};

TEST_P(Transport, AChainPassesBatchesOnWhateverItsLinksAre) {
  Rank rank;
  RealHost first(rank.loop, rank.arena, inverting({"cpp", "auto", "mutable"}));
  RealHost second(rank.loop, rank.arena, inverting({"python", GetParam(), "strided"}));
  RealHost third(rank.loop, rank.arena, inverting({"cpp", "auto", "new"}));
  for (int i = 0; i < 5; ++i) {
    const Batch batch{tensor("x", DType::kFloat32, {512, 513}, i), tensor("y", DType::kInt64, {9000}, i),
                      tensor("z", DType::kBool, {2}, i)};
    expect_inverted(batch, answer_of(third, answer_of(second, answer_of(first, batch))));
  }
}

TEST_P(Transport, AHostThatKeepsAllItSeesGetsBytesInTheEnd) {
  Rank rank(8 * kMiB);
  RealHost host(rank.loop, rank.arena, python_plugin("Hoards", GetParam()));
  for (int i = 0; i < 42;
       ++i) {  // it keeps 40 and then lets go; what is given back comes with the next answer
    const Batch batch{tensor("x", DType::kFloat32, {1 << 18}, i)};
    const Batch out = answer_of(host, batch);
    ASSERT_EQ(out.size(), 1u);
    EXPECT_EQ(out[0].bytes.text(), batch[0].bytes.text());
    EXPECT_FALSE(i == 39 && GetParam() == "auto" && rank.arena.allocate(kMiB).ok());
  }
  std::vector<Slot> free;
  for (Result<Slot> slot = rank.arena.allocate(kMiB); slot.ok(); slot = rank.arena.allocate(kMiB))
    free.push_back(*std::move(slot));
  EXPECT_GE(free.size(), 6u) << "of 8; the last answer is still looked at";
}

TEST_P(Transport, WhatIsNoTensorIsRefusedInASentence) {
  Rank rank;
  RealHost host(rank.loop, rank.arena, python_plugin("Foreign", GetParam()));
  const Batch batch{tensor("x", DType::kFloat32, {5000})};
  for (const char* type : {"complex64", "complex128", "float128", "uint16", "uint32", "uint64",
                           "datetime64[s]", "object", "<U4", "[('f0', '<i4'), ('f1', '<f4')]"}) {
    const std::optional<Outcome> outcome = host.call("transform_train_batch", batch);
    ASSERT_TRUE(outcome.has_value()) << host.fault();
    EXPECT_EQ(outcome->kind, Outcome::Kind::kError);
    EXPECT_NE(outcome->reason.find("batch[\"x\"] has type " + std::string(type) +
                                   ", which is not carried; use bool, uint8, int8, int16, int32, int64, "
                                   "float16, bfloat16, float32 or float64"),
              std::string::npos)
        << outcome->reason;
  }
  EXPECT_EQ(answer_of(host, batch).size(), 1u) << "the host lives";
}

INSTANTIATE_TEST_SUITE_P(Transports, Transport, testing::Values("auto", "socket"),
                         [](const auto& chosen) { return chosen.param; });

}  // namespace
}  // namespace bulkhead
