// Batches to a real native host on a GPU and back: lent in a region, and
// through host memory where they are not.  The driver is a stand-in for it in
// both processes (support/cuda_stand_in.cpp); tests/gpu has the real one, and
// Python's host.
#include <cstdlib>
#include <cstring>
#include <ostream>

#include <gtest/gtest.h>

#include "support/real_host.h"
#include "support/stand_in_gpu.h"

namespace bulkhead {
namespace {

constexpr const char* kHook = "transform_train_batch";

struct Plane : testing::TestWithParam<std::string> {
  Plane() {
    ::setenv("LD_LIBRARY_PATH", BULKHEAD_BUILD_DIR "/tests/stand_in", 1);
    // Whose GPU is another one shares no memory of it.
    if (GetParam() == "other") ::setenv("BULKHEAD_STAND_IN_GPU", "x", 1);
  }
  ~Plane() override {
    ::unsetenv("LD_LIBRARY_PATH");
    ::unsetenv("BULKHEAD_STAND_IN_GPU");
  }

  bool is_lent() const { return GetParam() == "auto"; }

  std::optional<Outcome> call(const std::string& how) {
    PluginConfig config;
    config.name = "device_probe";
    config.language = "cpp";
    config.file = BULKHEAD_BUILD_DIR "/tests/plugins/device_probe.so";
    config.device = "cuda";
    config.transport = GetParam() == "socket" ? "socket" : "auto";
    config.check_finite = check_finite;
    config.with["how"] = how;
    host.emplace(loop, arena, config, BULKHEAD_PYTHON, &gpu.memory);
    return host->call(kHook, batch);
  }
  static std::vector<float> floats(const Batch& all, std::size_t index) {
    const Tensor dense = bulkhead::dense(in_host_memory(all).at(index));
    std::vector<float> values(dense.bytes.size / sizeof(float));
    std::memcpy(values.data(), dense.bytes.data, dense.bytes.size);
    return values;
  }

  StandInGpu gpu;
  EventLoop loop;
  Arena arena{std::size_t{64} << 20};
  bool check_finite = false;
  const std::vector<float> x{0, 1, 2, 3, 4, 5};
  Batch batch{
      {"x", DType::kFloat32, {2, 3}, Blob::of(std::string(reinterpret_cast<const char*>(x.data()), 24))},
      {"ids", DType::kInt64, {1}, Blob::of(std::string(8, '\1'))}};
  std::optional<RealHost> host;
};

TEST_P(Plane, ThePluginIsToldWhereItsBatchIs) {
  const auto outcome = call("where");
  ASSERT_TRUE(outcome) << host->fault();
  EXPECT_NE(outcome->reason.find("on 0 of cuda:0"), std::string::npos) << outcome->reason;
}

TEST_P(Plane, WhatIsChangedInPlaceComesBackAndTheRestIsTheRanksOwn) {
  const auto outcome = call("in_place");
  ASSERT_TRUE(outcome && outcome->kind == Outcome::Kind::kAnswer) << host->fault();
  EXPECT_EQ(floats(outcome->batch, 0), (std::vector<float>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(outcome->batch[0].bytes.device != nullptr, is_lent());
  EXPECT_EQ(outcome->batch[1].bytes.data, batch[1].bytes.data);
  EXPECT_EQ(floats(batch, 0), x);
}

TEST_P(Plane, ASliceOfAPermutationNeedsNoCopy) {
  const auto outcome = call("slice");
  ASSERT_TRUE(outcome && outcome->kind == Outcome::Kind::kAnswer) << host->fault();
  EXPECT_EQ(outcome->batch[0].shape, (std::vector<std::int64_t>{2, 2}));
  EXPECT_EQ(floats(outcome->batch, 0), (std::vector<float>{1, 4, 2, 5}));
}

TEST_P(Plane, ANewTensorIsMadeOnTheGpu) {
  const auto outcome = call("new");  // another schema than the input's: the rank says what came
  ASSERT_TRUE(outcome) << host->fault();
  EXPECT_EQ(outcome->reason,
            "the batch came back as {ids int64[1], y float32[2,3]}, not as {x float32[2,3], ids int64[1]}");
}

TEST_P(Plane, NothingChangedIsTheInput) {
  const auto outcome = call("nothing");
  ASSERT_TRUE(outcome && outcome->kind == Outcome::Kind::kAnswer) << host->fault();
  EXPECT_EQ(outcome->batch[0].bytes.data, batch[0].bytes.data);
}

TEST_P(Plane, WhatAGpuCannotDoIsASentence) {
  const std::vector<std::pair<std::string, std::string>> mistakes = {
      {"seen", "\"x\" cannot be copied on a GPU: take mutable_view() before any view() of it"},
      {"flat", "flat() needs elements in host memory; these lie on a GPU"},
      {"room", "\"y\": the region on the GPU has no room for 4294967296 bytes more"}};
  for (const auto& [how, sentence] : mistakes) {
    const auto outcome = call(how);
    ASSERT_TRUE(outcome) << host->fault();
    EXPECT_NE(outcome->reason.find(sentence), std::string::npos) << outcome->reason;
  }
}

TEST_P(Plane, WhatIsSearchedForNaNComesToHostMemory) {
  check_finite = true;
  const auto outcome = call("in_place");
  ASSERT_TRUE(outcome && outcome->kind == Outcome::Kind::kAnswer) << host->fault();
  EXPECT_EQ(outcome->batch[0].bytes.device, nullptr);
}

TEST_P(Plane, ManyCallsUseTheSameFewRegions) {
  ASSERT_TRUE(call("in_place"));
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(host->call(kHook, batch)) << host->fault();
  for (int i = 0; i < 8; ++i) host->begin(kHook, batch);
  for (int ended = 0; ended < 8;) {
    const int more = host->wait();
    ASSERT_GT(more, 0) << host->fault();
    ended += more;
    EXPECT_EQ(floats(host->last().batch, 0)[5], 6);
  }
}

INSTANTIATE_TEST_SUITE_P(Ways, Plane, testing::Values("auto", "socket", "other"),
                         [](const auto& way) { return way.param; });

TEST(NoGpu, APluginThatWantsOneIsRefusedInASentence) {
  EventLoop loop;
  Arena arena{std::size_t{1} << 20};
  PluginConfig config;
  config.name = "device_probe";
  config.language = "cpp";
  config.file = BULKHEAD_BUILD_DIR "/tests/plugins/device_probe.so";
  config.device = "cuda";
  EXPECT_DEATH(RealHost(loop, arena, config), "device_probe has device: cuda, but the rank is on cpu");
}

}  // namespace
}  // namespace bulkhead
