// Hosts that run out of what shared memory is made of, in real processes.
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <sys/resource.h>

#include <gtest/gtest.h>

#include "support/real_host.h"

namespace bulkhead {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

PluginConfig inverting(const std::string& language, const std::string& how = "mutable") {
  PluginConfig config;
  config.name = "Tensors";
  config.language = language;
  config.file = BULKHEAD_SOURCE_DIR "/tests/support/plugins/tensors.py";
  config.class_name = "Tensors";
  if (language == "cpp") {
    config.file = BULKHEAD_BUILD_DIR "/tests/plugins/tensors.so";
    config.class_name.clear();
  }
  config.with["how"] = how;
  return config;
}

Batch zeros(std::size_t bytes) {
  return {{"x",
           DType::kUInt8,
           {static_cast<std::int64_t>(bytes)},
           Blob::of(std::vector<std::byte>(bytes, std::byte{0}))}};
}

std::size_t address_space(pid_t pid) {
  std::ifstream statm("/proc/" + std::to_string(pid) + "/statm");
  std::size_t pages = 0;
  statm >> pages;
  return pages * 4096;
}

// The limit with which it can open so many more files.
std::size_t room_for_files(pid_t pid, int more) {
  std::set<std::size_t> open;
  for (const auto& file : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/fd"))
    open.insert(std::stoul(file.path().filename().string()));
  std::size_t number = 0;
  for (; more >= 0; ++number) more -= open.contains(number) ? 0 : 1;
  return number - 1;
}

void limit(pid_t pid, __rlimit_resource what, std::size_t to) {
  rlimit limits{};
  ASSERT_EQ(::prlimit(pid, what, nullptr, &limits), 0);
  limits.rlim_cur = to;
  ASSERT_EQ(::prlimit(pid, what, &limits, nullptr), 0) << std::strerror(errno);
}

// A sanitizer ends its process where operator new would throw, and looks at memory through descriptors.
constexpr bool kSanitized = BULKHEAD_SANITIZED;

class ScarceMemory : public testing::TestWithParam<std::string> {
 protected:
  bool is_native() const { return GetParam() == "cpp"; }
  pid_t pid() { return host.process().pid(); }
  // What the plugin does to a batch that lies in shared memory.
  std::optional<Outcome> call() { return host.call("transform_train_batch", zeros(kBytes)); }
  void expect_inverted(const std::optional<Outcome>& outcome) {
    ASSERT_TRUE(outcome.has_value()) << host.fault();
    ASSERT_EQ(outcome->kind, Outcome::Kind::kAnswer) << outcome->reason;
    const Blob& bytes = outcome->batch.at(0).bytes;
    ASSERT_EQ(bytes.size, kBytes);
    EXPECT_TRUE(bytes.data[0] == std::byte{0xFF} && bytes.data[kBytes - 1] == std::byte{0xFF});
  }

  static constexpr std::size_t kBytes = 64 * kMiB;
  EventLoop loop;
  Arena arena{std::size_t{1} << 30};
  RealHost host{loop, arena, inverting(GetParam())};
};

TEST_P(ScarceMemory, AHostThatCannotSeeItsInputEndsAtOnce) {
  limit(pid(), RLIMIT_AS, address_space(pid()) + kBytes / 4);
  host.begin("transform_train_batch", zeros(kBytes));
  EXPECT_EQ(host.wait(std::chrono::seconds(1)), 0);
  EXPECT_EQ(host.process().end(), 1) << "and is started again, as after any other death";
}

TEST_P(ScarceMemory, APluginWithoutRoomForItsOutputFailsInThatCall) {
  if (is_native() && kSanitized) GTEST_SKIP() << "under a sanitizer the process ends";
  ASSERT_TRUE(host.call("transform_train_batch", zeros(5000)).has_value()) << "has what it needs anyway";
  const std::size_t before = address_space(pid());
  limit(pid(), RLIMIT_AS, before + kBytes * 3 / 2);
  const std::optional<Outcome> failed = call();
  ASSERT_TRUE(failed.has_value()) << host.fault();
  EXPECT_EQ(failed->kind, Outcome::Kind::kError);
  EXPECT_NE(failed->reason.find(is_native() ? "bad_alloc" : "Unable to allocate 64.0 MiB"), std::string::npos)
      << failed->reason;
  limit(pid(), RLIMIT_AS, before + kBytes * 16);
  const std::optional<Outcome> outcome = call();
  ASSERT_TRUE(outcome.has_value()) << host.fault();
  EXPECT_EQ(outcome->kind, Outcome::Kind::kAnswer) << outcome->reason;
}

TEST_P(ScarceMemory, WithoutADescriptorForItsMemoryItAnswersAllTheSame) {
  if (is_native() && kSanitized)
    GTEST_SKIP() << "UBSan opens a pipe to look at an object, and finds none without";
  ASSERT_TRUE(
      host.call("transform_train_batch", zeros(5000)).has_value());  // has opened what it needs anyway
  // One for the rank's memory, of which Python's mmap keeps a copy; none for its own.
  limit(pid(), RLIMIT_NOFILE, room_for_files(pid(), is_native() ? 1 : 2));
  // Where another of its files was closed meanwhile there is room after all.
  expect_inverted(call());
}

TEST_P(ScarceMemory, WithoutSharedMemoryBytesAreSent) {
  if (is_native())
    GTEST_SKIP() << "the limit that stands for a full machine here is a signal to all but Python";
  limit(pid(), RLIMIT_FSIZE, 4 * kMiB);
  const std::optional<Outcome> outcome = call();
  expect_inverted(outcome);
  EXPECT_EQ(outcome->batch.at(0).bytes.segment, nullptr) << "they came as bytes";
}

std::size_t available_bytes() {
  std::ifstream lines("/proc/meminfo");
  for (std::string name, unit; lines >> name;) {
    std::size_t kib = 0;
    lines >> kib >> unit;
    if (name == "MemAvailable:") return kib << 10;
  }
  return 0;
}

class LargeBatch : public testing::TestWithParam<std::string> {};

TEST_P(LargeBatch, OfMoreBytesThan32BitsCount) {
  constexpr std::size_t kCount = (std::size_t{1} << 30) + 3;
  constexpr std::size_t kSize = kCount * sizeof(float);
  // Minutes on a machine whose own memory is virtual.
  if (std::getenv("BULKHEAD_TEST_LARGE") == nullptr) GTEST_SKIP() << "only with BULKHEAD_TEST_LARGE set";
  if (available_bytes() < 3 * kSize) GTEST_SKIP() << "there are no " << 3 * (kSize >> 30) << " GiB to spare";
  EventLoop loop;
  Arena arena(2 * kSize);
  PluginConfig config = inverting(GetParam(), "ends");
  config.deadline_seconds = 300;
  RealHost host(loop, arena, std::move(config));
  Result<Slot> slot = arena.allocate(kSize);
  ASSERT_TRUE(slot.ok()) << slot.error().message;
  slot->data[kSize / 2] = std::byte{7};
  slot->data[kSize - 2] = std::byte{9};
  const Batch batch{{"x", DType::kFloat32, {static_cast<std::int64_t>(kCount)}, slot->blob()}};
  host.begin("transform_train_batch", batch);
  ASSERT_EQ(host.wait(std::chrono::seconds(300)), 1) << host.fault();
  ASSERT_EQ(host.last().kind, Outcome::Kind::kAnswer) << host.last().reason;
  const Blob& out = host.last().batch.at(0).bytes;
  ASSERT_EQ(out.size, kSize);
  EXPECT_TRUE(out.data[0] == std::byte{0xFF} && out.data[kSize - 1] == std::byte{0xFF});
  EXPECT_TRUE(out.data[1] == std::byte{0} && out.data[kSize / 2] == std::byte{7} &&
              out.data[kSize - 2] == std::byte{9});
}

INSTANTIATE_TEST_SUITE_P(Languages, LargeBatch, testing::Values("cpp", "python"),
                         [](const auto& chosen) { return chosen.param; });
INSTANTIATE_TEST_SUITE_P(Languages, ScarceMemory, testing::Values("cpp", "python"),
                         [](const auto& chosen) { return chosen.param; });

}  // namespace
}  // namespace bulkhead
