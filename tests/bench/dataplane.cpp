// Calls of a real plugin in a real plugin host: what scripts/bench/dataplane
// runs, one measurement at a time.
//
//   bench_dataplane METRIC[,METRIC…] CASE BYTES free|same_cpu SECONDS    one JSON line (measuring.h)
//
// A call carries a float32 tensor of BYTES to transform_train_batch, which adds
// one in place; BYTES 0 calls on_step_end, without a batch.  The first and the
// last element that come back are checked.  CASE: bulkhead-cpp, bulkhead-py,
// bulkhead-py-torch (the host's Python is $BULKHEAD_BENCH_PYTHON, which then
// must have torch), zmq-inline (cppzmq as it is: three frames there, three back).
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <zmq.hpp>

#include "bench/measuring.h"
#include "host_link.h"
#include "protocol/arena.h"
#include "support/started_process.h"
#include "support/temporary_directory.h"

namespace bulkhead {
namespace {

constexpr Generation kSelf{1};
constexpr Generation kHost{2};
constexpr const char* kSecret = "bench";

// ----- bulkhead -----

// A host, and this process as its coordinator and its worker.
class Host {
 public:
  explicit Host(const std::string& name) : name_(name) {
    std::unique_ptr<Channel> control;
    auto listener = listen_channel(loop_, endpoint("control"), {.one_peer = true},
                                   [&](std::unique_ptr<Channel> peer) { control = std::move(peer); });
    CHECK(listener.ok());
    listener_ = *std::move(listener);
    start();
    loop_.run_until([&] { return control != nullptr; });
    control_ = std::move(control);
    control_->start({[this](Message message) { on_control(std::move(message)); }, [](const Error&) {}});
    loop_.run_until([this] { return ready_; });
  }
  ~Host() {
    link_.reset();
    control_->send(Stop{kSelf, "measured"});
    process_->signal(SIGTERM);
  }

  EventLoop& loop() { return loop_; }
  Arena& arena() { return arena_; }

  void call(std::string_view hook, const Batch& batch) {
    CallContext context;
    context.global_step = ++step_;
    const Seq seq = link_->submit(hook, context, batch.empty() ? std::nullopt : std::optional(batch));
    link_->want(seq);
  }
  // How many calls have ended, after waiting for one.
  int wait() {
    loop_.run_until([this] { return ended_ > 0; });
    return std::exchange(ended_, 0);
  }
  const Outcome& last() const { return last_; }

 private:
  std::string endpoint(const std::string& place) const {
    return "ipc://" + (directory_.path() / place).string();
  }
  bool is_native() const { return name_ == "bulkhead-cpp"; }

  void start() {
    ::setenv("BULKHEAD_ENDPOINT", endpoint("control").c_str(), 1);
    ::setenv("BULKHEAD_SECRET", kSecret, 1);
    ::setenv("BULKHEAD_GENERATION", "2", 1);
    ::setenv("BULKHEAD_PLUGIN", "0", 1);
    ::setenv("BULKHEAD_RANK", "0", 1);
    ::setenv("PYTHONPATH", BULKHEAD_SOURCE_DIR "/plugin-host/python", 1);
    const char* python = std::getenv("BULKHEAD_BENCH_PYTHON");
    std::vector<std::string> command{python != nullptr ? python : BULKHEAD_PYTHON, "-m", "bulkhead.host"};
    if (is_native()) command = {BULKHEAD_BUILD_DIR "/plugin-host/bulkhead-plugin-host"};
    process_ = std::make_unique<StartedProcess>(std::move(command));
  }

  void on_control(Message message) {
    if (std::holds_alternative<Hello>(message)) {
      control_->send(Welcome{kSelf});
      Load load;
      load.generation = kSelf;
      load.config = config();
      load.facts.plugin = "add_one";
      load.facts.run_dir = directory_.path().string();
      control_->send(load);
    } else if (const auto* loaded = std::get_if<Loaded>(&message)) {
      attach(loaded->traits);
    } else if (const auto* failed = std::get_if<LoadFailed>(&message)) {
      CHECK(false, failed->failure.message);
    }
  }

  PluginConfig config() const {
    PluginConfig config;
    config.name = "add_one";
    config.language = is_native() ? "cpp" : "python";
    config.file = is_native() ? BULKHEAD_BUILD_DIR "/tests/bench/add_one.so"
                              : BULKHEAD_SOURCE_DIR "/tests/bench/plugins/add_one.py";
    if (!is_native()) config.class_name = name_ == "bulkhead-py" ? "AddOne" : "AddOneTorch";
    return config;
  }

  void attach(const PluginTraits& traits) {
    HostLink::Surroundings around;
    around.loop = &loop_;
    around.generation = kSelf;
    around.secret = kSecret;
    around.tell_coordinator = [this](const Message& message) {
      if (std::holds_alternative<HostReady>(message)) ready_ = true;
      if (const auto* fault = std::get_if<HostFault>(&message)) CHECK(false, fault->reason);
    };
    around.settle = [this](Seq, Outcome outcome) {
      CHECK(outcome.kind == Outcome::Kind::kAnswer, outcome.reason);
      last_ = std::move(outcome);
      ++ended_;
    };
    around.arena = &arena_;
    around.alone = true;
    link_.emplace(PluginRoute{PluginId{0}, config(), traits}, StreamOptions{}, std::move(around));
    link_->attach({kSelf, PluginId{0}, kHost, endpoint("data"), false});
    control_->send(Attach{kSelf, endpoint("data"), kSelf});
  }

  const std::string name_;
  TemporaryDirectory directory_;
  EventLoop loop_;
  Arena arena_{default_arena_bytes()};
  std::unique_ptr<Listener> listener_;
  std::unique_ptr<StartedProcess> process_;
  std::unique_ptr<Channel> control_;
  std::optional<HostLink> link_;
  bool ready_ = false;
  int ended_ = 0;
  std::int64_t step_ = 0;
  Outcome last_;
};

float element(const Blob& bytes, std::size_t index) {
  float value = 0;
  std::memcpy(&value, bytes.data + index * sizeof value, sizeof value);
  return value;
}

void measure_host(const bench::Request& request) {
  Host host(request.name);
  Batch batch;
  const std::size_t count = request.bytes / sizeof(float);
  if (count > 0) {
    Result<Slot> slot = host.arena().allocate(request.bytes);
    CHECK(slot.ok());
    auto* x = reinterpret_cast<float*>(slot->data);
    for (std::size_t i = 0; i < count; ++i) x[i] = static_cast<float>(i % 1000);
    batch = {{"x", DType::kFloat32, {static_cast<std::int64_t>(count)}, slot->blob()}};
  }
  const auto receive = [&] {
    const int ended = host.wait();
    if (count == 0) return ended;
    const Blob& out = host.last().batch.at(0).bytes;
    CHECK(element(out, 0) == 1 && element(out, count - 1) == static_cast<float>((count - 1) % 1000 + 1));
    return ended;
  };
  bench::measure(request,
                 {[&] { host.call(count > 0 ? "transform_train_batch" : "on_step_end", batch); }, receive});
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
