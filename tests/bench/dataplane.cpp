// Calls of a real plugin in a real plugin host: what scripts/bench/dataplane
// runs, one measurement at a time.
//
//   bench_dataplane METRIC[,METRIC…] CASE BYTES free|same_cpu SECONDS    one JSON line (measuring.h)
//
// A call carries a float32 tensor of BYTES to transform_train_batch, which adds
// one in place; BYTES 0 calls on_step_end, without a batch.  As the first plugin
// of a rank's chain it is given a tensor of 4 KiB and more to keep, and changes
// it where it lies.  The first and the last element that come back are checked.  CASE: bulkhead-cpp,
// bulkhead-py, bulkhead-py-torch (the host's Python is $BULKHEAD_BENCH_PYTHON, which then must have torch),
// each with -socket behind it for `transport: socket` or with -spin for `spin: 50`, and zmq-inline (cppzmq as
// it is: three frames there, three back).
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include <zmq.hpp>

#include "bench/measuring.h"
#include "support/real_host.h"
#include "support/started_process.h"
#include "support/temporary_directory.h"

namespace bulkhead {
namespace {

// ----- bulkhead -----

PluginConfig add_one(std::string name) {
  const auto drop = [&name](std::string_view end) {
    const bool found = name.ends_with(end);
    if (found) name.resize(name.size() - end.size());
    return found;
  };
  PluginConfig config;
  config.name = "add_one";
  if (drop("-socket")) config.transport = "socket";
  if (drop("-spin")) config.spin_us = 50;
  const bool is_native = name == "bulkhead-cpp";
  config.language = is_native ? "cpp" : "python";
  config.file = is_native ? BULKHEAD_BUILD_DIR "/tests/bench/add_one.so"
                          : BULKHEAD_SOURCE_DIR "/tests/bench/plugins/add_one.py";
  if (!is_native) config.class_name = name == "bulkhead-py" ? "AddOne" : "AddOneTorch";
  return config;
}

float element(const Blob& bytes, std::size_t index) {
  float value = 0;
  std::memcpy(&value, bytes.data + index * sizeof value, sizeof value);
  return value;
}

void measure_host(const bench::Request& request) {
  EventLoop loop;
  Arena arena(default_arena_bytes(), PeerAccess::kWrite);
  const char* python = std::getenv("BULKHEAD_BENCH_PYTHON");
  RealHost host(loop, arena, add_one(request.name), python != nullptr ? python : BULKHEAD_PYTHON);
  Batch batch;
  const std::size_t count = request.bytes / sizeof(float);
  if (count > 0) {
    std::vector<std::byte> bytes(request.bytes);
    for (std::size_t i = 0; i < count; ++i) {
      const auto value = static_cast<float>(i % 1000);
      std::memcpy(bytes.data() + i * sizeof value, &value, sizeof value);
    }
    batch = {{"x", DType::kFloat32, {static_cast<std::int64_t>(count)}, Blob::of(std::move(bytes))}};
    share(arena, batch);
  }
  // Changed where it lies it goes on from call to call.
  const bool in_place = !request.name.ends_with("-socket") && request.bytes >= kWorthSharing;
  const auto again = []() -> Batch {
    CHECK(false, "no call is made again");
    return {};
  };
  float calls = 0;
  const auto receive = [&] {
    const int ended = host.wait();
    CHECK(ended > 0, host.fault());
    CHECK(host.last().kind == Outcome::Kind::kAnswer, host.last().reason);
    if (count == 0) return ended;
    calls += static_cast<float>(ended);
    const Blob& out = host.last().batch.at(0).bytes;
    const float least = in_place ? calls : 1;  // the calls behind it may have changed it too
    const float first = element(out, 0);
    const float last = element(out, count - 1) - static_cast<float>((count - 1) % 1000);
    CHECK(in_place ? first >= least && last >= least : first == 1 && last == 1);
    return ended;
  };
  bench::measure(
      request,
      {[&] { host.begin(count > 0 ? "transform_train_batch" : "on_step_end", batch, again); }, receive});
}

// ----- cppzmq as it is -----

int serve_raw(const std::string& endpoint) {
  zmq::context_t context(1);
  zmq::socket_t socket(context, zmq::socket_type::dealer);
  socket.set(zmq::sockopt::routing_id, "peer");
  socket.connect(endpoint);
  socket.send(zmq::str_buffer("hello"), zmq::send_flags::none);
  for (;;) {
    zmq::message_t header, payload;
    (void)socket.recv(header);
    (void)socket.recv(payload);
    if (payload.size() == 0) return 0;
    auto* x = payload.data<float>();
    for (std::size_t i = 0; i < payload.size() / sizeof(float); ++i) x[i] += 1;
    socket.send(header, zmq::send_flags::sndmore);
    socket.send(payload, zmq::send_flags::none);
  }
}

void measure_raw(const bench::Request& request) {
  const TemporaryDirectory directory;
  const std::string endpoint = "ipc://" + (directory.path() / "raw").string();
  zmq::context_t context(1);
  zmq::socket_t socket(context, zmq::socket_type::router);
  socket.set(zmq::sockopt::linger, 1000);  // ms, for the last message
  socket.bind(endpoint);
  const StartedProcess peer({"/proc/self/exe", "serve", endpoint});
  zmq::message_t identity, hello;
  (void)socket.recv(identity);
  (void)socket.recv(hello);
  const std::string header(24, '\0');
  const std::vector<float> x(std::max<std::size_t>(request.bytes, 64) / sizeof(float), 1.0F);
  const auto send = [&](std::size_t size) {
    socket.send(zmq::str_buffer("peer"), zmq::send_flags::sndmore);
    socket.send(zmq::buffer(header), zmq::send_flags::sndmore);
    socket.send(zmq::buffer(x.data(), size), zmq::send_flags::none);
  };
  const auto receive = [&] {
    zmq::message_t from, first, second;
    (void)socket.recv(from);
    (void)socket.recv(first);
    (void)socket.recv(second);
    CHECK(second.data<float>()[0] == 2 && second.data<float>()[x.size() - 1] == 2);
    return 1;
  };
  bench::measure(request, {[&] { send(x.size() * sizeof(float)); }, receive});
  send(0);
}

}  // namespace
}  // namespace bulkhead

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.size() == 2 && words[0] == "serve") return bulkhead::serve_raw(words[1]);
  if (words.size() != 5) return 2;
  const bulkhead::bench::Request request = bulkhead::bench::read_request(words);
  if (request.name == "zmq-inline") {
    bulkhead::measure_raw(request);
  } else {
    bulkhead::measure_host(request);
  }
  return 0;
}
