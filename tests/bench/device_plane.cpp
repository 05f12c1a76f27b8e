// A transform of a tensor that lies on the rank's GPU and is wanted there
// again: lent to the plugin's process (`device: cuda`), or through host memory
// with the two copies that this needs.  Needs a GPU.
//
//   bench_device_plane BYTES SECONDS    one JSON line for each way; rounds of SECONDS take turns
//
// The plugin adds one to every element of a float32 tensor, in place; both ways
// begin and end with a tensor of the rank's own.  Through host memory the tensor
// is copied to a pinned slot, changed there, and copied back from there: no copy
// more than that.  $BULKHEAD_BENCH_PYTHON must have torch with CUDA; the native
// plugin for the GPU is test_plugin_add_one_gpu.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "bench/measuring.h"
#include "support/real_host.h"

namespace bulkhead {
namespace {

constexpr int kRounds = 3;

struct Gpu {
  explicit Gpu(std::size_t bytes)
      : calls(*load_device_calls()),
        device(*Device::open(calls, 0)),
        memory(device, 16 * bytes + (64 << 20)) {}
  // A tensor of the rank's own, all ones.
  Batch ones(std::size_t bytes) {
    std::vector<float> all(bytes / sizeof(float), 1.0F);
    auto block = *memory.take_shared(bytes);
    CHECK(block->fill(0, reinterpret_cast<DeviceAddress>(all.data()), bytes).ok());
    CHECK(device->settle().ok());
    Blob kept = *memory.keep(*block, 0, bytes);
    CHECK(device->settle().ok());
    memory.put_back(std::move(block));
    return {{"x", DType::kFloat32, {static_cast<std::int64_t>(all.size())}, std::move(kept)}};
  }

  DeviceCalls calls;
  std::shared_ptr<const Device> device;
  DeviceMemory memory;
};

PluginConfig add_one(const std::string& language, const std::string& device) {
  PluginConfig config;
  config.name = "add_one";
  config.device = device;
  config.language = language;
  if (language == "python") {
    config.file = BULKHEAD_SOURCE_DIR "/tests/bench/plugins/add_one.py";
    config.class_name = "AddOneTorch";
  } else {
    config.file = std::string(BULKHEAD_BUILD_DIR) +
                  (device == "cuda" ? "/tests/plugins/add_one_gpu.so" : "/tests/bench/add_one.so");
  }
  return config;
}

struct Way {
  Way(EventLoop& loop, Gpu& on, const std::string& language, const std::string& device, std::size_t bytes)
      : gpu(on),
        name(language + (device == "cuda" ? ", on the GPU" : ", through host memory")),
        through_host(device == "cpu"),
        input(on.ones(bytes)),
        host(loop, arena, add_one(language, device), python(), &on.memory) {
    if (!through_host) return;
    slot = *arena.allocate(bytes);
    back = *gpu.memory.take_shared(bytes);
    CHECK(gpu.calls.mem_host_register(slot.data, bytes, 0) == 0);
  }
  static const char* python() {
    const char* given = std::getenv("BULKHEAD_BENCH_PYTHON");
    return given != nullptr ? given : BULKHEAD_PYTHON;
  }

  void call() {
    Batch batch = input;
    const Blob& from = input[0].bytes;
    if (through_host) {
      CHECK(gpu.device->enter().ok());
      CHECK(gpu.calls.memcpy_async(reinterpret_cast<DeviceAddress>(slot.data),
                                   reinterpret_cast<DeviceAddress>(from.data), from.size,
                                   gpu.device->stream()) == 0);
      CHECK(gpu.device->settle().ok());
      batch[0].bytes = slot.blob();
    }
    host.begin("transform_train_batch", batch, []() -> Batch {
      CHECK(false, "no call is made again");
      return {};
    });
    CHECK(host.wait() == 1, host.fault());
    CHECK(host.last().kind == Outcome::Kind::kAnswer, host.last().reason);
    if (through_host)
      CHECK(back->fill(0, reinterpret_cast<DeviceAddress>(host.last().batch[0].bytes.data), from.size).ok());
    CHECK(gpu.device->settle().ok());
  }

  // Once: what came back is the input and one.
  void check() {
    const Batch out = through_host ? host.last().batch : in_host_memory(host.last().batch);
    CHECK(through_host || host.last().batch[0].bytes.device != nullptr, "it did not come back on the GPU");
    const Blob& bytes = out[0].bytes;
    float first = 0, last = 0;
    std::memcpy(&first, bytes.data, sizeof first);
    std::memcpy(&last, bytes.data + bytes.size - sizeof last, sizeof last);
    CHECK(first == 2 && last == 2, std::to_string(first));
  }

  Gpu& gpu;
  std::string name;
  bool through_host;
  Batch input;
  Arena arena{default_arena_bytes(), PeerAccess::kWrite};
  RealHost host;
  Slot slot;
  std::shared_ptr<DeviceBlock> back;
};

int measure(std::size_t bytes, double seconds) {
  EventLoop loop;
  Gpu gpu(bytes);
  std::vector<std::unique_ptr<Way>> ways;
  for (const char* language : {"python", "cpp"}) {
    for (const char* device : {"cuda", "cpu"})
      ways.push_back(std::make_unique<Way>(loop, gpu, language, device, bytes));
  }
  for (const auto& way : ways) {
    for (int i = 0; i < 5; ++i) way->call();
    way->check();
  }
  for (int round = 0; round < kRounds; ++round) {
    for (const auto& way : ways) {
      const std::string figures = bench::latency({[&] { way->call(); }, [] { return 1; }}, seconds);
      std::printf(R"({"way": "%s", "bytes": %zu, "round": %d, "us": {%s}})"
                  "\n",
                  way->name.c_str(), bytes, round, figures.c_str());
      std::fflush(stdout);
    }
  }
  return 0;
}

}  // namespace
}  // namespace bulkhead

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  return bulkhead::measure(std::stoull(argv[1]), std::stod(argv[2]));
}
