// Outputs of real plugins that are pieces of their inputs, in both languages:
// where memory is shared nothing of them is copied, through a socket the same
// comes back.
#include <algorithm>
#include <cstring>
#include <ostream>

#include <gtest/gtest.h>

#include "support/real_host.h"

namespace bulkhead {
namespace {

struct Way {
  std::string language, transport;

  friend std::ostream& operator<<(std::ostream& out, const Way& way) {
    return out << way.language << '_' << way.transport;
  }
};

class Pieces : public testing::TestWithParam<Way> {
 protected:
  bool shares() const { return GetParam().transport == "auto"; }

  PluginConfig plugin(const std::string& how) const {
    PluginConfig config;
    config.name = "tensors";
    config.language = GetParam().language;
    config.transport = GetParam().transport;
    config.file = BULKHEAD_BUILD_DIR "/tests/plugins/tensors.so";
    if (config.language == "python") {
      config.file = BULKHEAD_SOURCE_DIR "/tests/support/plugins/tensors.py";
      config.class_name = "Tensors";
    }
    config.with["how"] = how;
    return config;
  }

  // float32 0, 1, 2, … [rows,columns], in shared memory.
  Batch counted(std::int64_t rows, std::int64_t columns) {
    std::vector<std::byte> bytes(static_cast<std::size_t>(rows * columns) * sizeof(float));
    for (std::int64_t i = 0; i < rows * columns; ++i) {
      const auto value = static_cast<float>(i);
      std::memcpy(bytes.data() + i * 4, &value, 4);
    }
    Batch batch{{"x", DType::kFloat32, {rows, columns}, Blob::of(std::move(bytes))}};
    share(arena_, batch);
    return batch;
  }

  EventLoop loop_;
  Arena arena_{std::size_t{1} << 30, PeerAccess::kWrite};
};

bool lies_in(const Blob& bytes, const Blob& whole) {
  return bytes.data >= whole.data && bytes.data + bytes.size <= whole.data + whole.size;
}

TEST_P(Pieces, OfAnInputAreNotCopied) {
  RealHost host(loop_, arena_, plugin("turned"));
  for (int round = 0; round < 3; ++round) {
    const Batch input = counted(64, 128);
    const auto outcome = host.call("transform_train_batch", input);
    ASSERT_TRUE(outcome.has_value()) << host.fault();
    ASSERT_EQ(outcome->kind, Outcome::Kind::kAnswer) << outcome->reason;
    const Tensor& output = outcome->batch.at(0);
    EXPECT_EQ(output.shape, (std::vector<std::int64_t>{128, 64}));
    EXPECT_TRUE(lies_in(output.bytes, input[0].bytes)) << "the rank has the input: nothing need travel";
    const Tensor rows = dense(output);
    float value = 0;
    std::memcpy(&value, rows.bytes.data + (5 * 64 + 3) * 4, 4);
    EXPECT_EQ(value, 3 * 128 + 5);
  }
}

TEST_P(Pieces, AreSeenByTheNextPluginAsTheyAre) {
  RealHost first(loop_, arena_, plugin("turned"));
  RealHost second(loop_, arena_, plugin("unseen"));
  const Batch input = counted(64, 128);
  const auto turned = first.call("transform_train_batch", input);
  ASSERT_TRUE(turned.has_value()) << first.fault();
  const auto inverted = second.call("transform_train_batch", turned->batch);
  ASSERT_TRUE(inverted.has_value()) << second.fault();
  ASSERT_EQ(inverted->kind, Outcome::Kind::kAnswer) << inverted->reason;
  const Tensor in = dense(turned->batch.at(0)), out = dense(inverted->batch.at(0));
  ASSERT_EQ(in.shape, out.shape);
  EXPECT_TRUE(std::equal(in.bytes.data, in.bytes.data + in.bytes.size, out.bytes.data,
                         [](std::byte a, std::byte b) { return a == ~b; }));
  EXPECT_EQ(dense(counted(64, 128)[0]).bytes.text(), input[0].bytes.text()) << "the input is whole";
}

TEST_P(Pieces, AnInputGivenAwayIsChangedWhereItLies) {
  RealHost host(loop_, arena_, plugin("unseen"));
  for (int round = 0; round < 3; ++round) {
    const Batch input = counted(32, 1000);
    const auto again = [this] { return counted(32, 1000); };
    const auto outcome = host.call("transform_train_batch", input, again);
    ASSERT_TRUE(outcome.has_value()) << host.fault();
    ASSERT_EQ(outcome->kind, Outcome::Kind::kAnswer) << outcome->reason;
    const Blob& output = outcome->batch.at(0).bytes;
    EXPECT_EQ(output.data == input[0].bytes.data, shares());
    const Batch before = counted(32, 1000);
    EXPECT_TRUE(std::equal(output.data, output.data + output.size, before[0].bytes.data,
                           [](std::byte a, std::byte b) { return a == ~b; }));
  }
}

TEST_P(Pieces, AnInputThatIsNotGivenAwayStaysWhole) {
  RealHost host(loop_, arena_, plugin("unseen"));
  const Batch input = counted(32, 1000);
  const auto outcome = host.call("transform_train_batch", input);
  ASSERT_TRUE(outcome.has_value()) << host.fault();
  EXPECT_NE(outcome->batch.at(0).bytes.data, input[0].bytes.data);
  EXPECT_EQ(input[0].bytes.text(), counted(32, 1000)[0].bytes.text());
}

INSTANTIATE_TEST_SUITE_P(All, Pieces,
                         testing::Values(Way{"cpp", "auto"}, Way{"cpp", "socket"}, Way{"python", "auto"},
                                         Way{"python", "socket"}),
                         testing::PrintToStringParamName());

}  // namespace
}  // namespace bulkhead
