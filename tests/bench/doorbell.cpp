// Small messages between two processes: what scripts/bench/doorbell runs, one
// measurement at a time.
//
//   bench_doorbell latency|throughput CASE free|same_cpu SECONDS    one JSON line
//   bench_doorbell codec|turn                                       nanoseconds of the parts, one JSON line
//   each
//
// CASE: ring, ring-spin (50 us), ring-call (a Call with a full context and its
// Reply), ring-python (the peer is a Python process), zeromq-channel,
// zmq-inline (cppzmq as it is).
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <poll.h>
#include <sched.h>
#include <string>
#include <string_view>
#include <sys/eventfd.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <zmq.hpp>

#include "protocol/local_socket.h"
#include "protocol/ring_channel.h"
#include "support/started_process.h"
#include "support/temporary_directory.h"

namespace bulkhead {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kWindow = 8;     // calls in flight
constexpr int kWarmUp = 2000;  // calls
constexpr std::size_t kBytes = 64;

double micros_since(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

void place(std::string_view placement) {
  if (placement != "same_cpu") return;
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  CPU_SET(0, &cpus);
  CHECK(::sched_setaffinity(0, sizeof cpus, &cpus) == 0);
}

// ----- Messages -----

// An envelope of kBytes.
Message small_message() {
  Progress progress{.generation = Generation(1), .seq = Seq(7), .detail = {}};
  for (std::string text; encode(progress)[0].size < kBytes; text += 'x') progress.detail = text;
  return progress;
}

Message call_message() {
  Call call;
  call.generation = Generation(1);
  call.seq = Seq(7);
  call.hook = "on_step_end";
  call.deadline_ms = 30'000;
  call.context.global_step = 1234;
  call.context.max_steps = 5000;
  call.context.lr = 3e-4;
  call.context.metrics = {{"loss", 2.25}};
  call.context.call_id = "7b2e-watch-0-1234";
  return call;
}

Message reply_message() {
  Reply reply;
  reply.generation = Generation(2);
  reply.seq = Seq(7);
  reply.hook = "on_step_end";
  return reply;
}

// ----- The two ways of measuring, over anything that sends and calls back -----

struct Measured {
  std::vector<double> micros;
  double calls_per_second = 0;
};

// `receive` waits and returns how many answers came.
template <class Send, class Receive>
Measured measure(std::string_view metric, double seconds, const Send& send, const Receive& receive) {
  Measured measured;
  const double limit = seconds * 1e6;
  for (int i = 0; i < kWarmUp; ++i) {
    send();
    receive();
  }
  const auto start = Clock::now();
  if (metric == "latency") {
    measured.micros.reserve(2'000'000);
    while (micros_since(start) < limit) {
      const auto before = Clock::now();
      send();
      receive();
      measured.micros.push_back(micros_since(before));
    }
    return measured;
  }
  int in_flight = 0;
  long done = 0;
  for (bool more = true; more || in_flight > 0;) {
    more = more && micros_since(start) < limit;
    for (; more && in_flight < kWindow; ++in_flight) send();
    if (in_flight == 0) break;
    const int answers = receive();
    in_flight -= answers;
    done += answers;
  }
  measured.calls_per_second = static_cast<double>(done) / micros_since(start) * 1e6;
  return measured;
}

// `greeted`: the peer has sent a message of its own before.
Measured measure_channel(std::string_view metric, double seconds, EventLoop& loop, Channel& channel,
                         const Message& message, bool greeted) {
  int answers = 0;
  channel.start(
      {[&](const Message&) { ++answers; }, [](const Error& error) { CHECK(false, error.message); }});
  if (greeted) loop.run_until([&] { return std::exchange(answers, 0) > 0; });
  return measure(
      metric, seconds, [&] { channel.send(message); },
      [&] {
        loop.run_until([&] { return answers > 0; });
        return std::exchange(answers, 0);
      });
}

// ----- Both sides of each case -----

int serve_channel(EventLoop& loop, Channel& channel, bool calls) {
  const Message reply = reply_message();
  channel.start({[&](const Message& message) { channel.send(calls ? reply : message); },
                 [&](const Error&) { loop.stop(); }});
  loop.run();
  return 0;
}

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
    *payload.data<char>() += 1;
    socket.send(header, zmq::send_flags::sndmore);
    socket.send(payload, zmq::send_flags::none);
  }
}

int serve(std::string_view name, std::string_view placement, const std::string& endpoint) {
  place(placement);
  if (name == "zmq-inline") return serve_raw(endpoint);
  EventLoop loop;
  if (name == "ring-spin") loop.spin_for(EventLoop::kMaxSpin);
  if (name == "zeromq-channel") {
    auto channel = connect_channel(loop, endpoint);
    CHECK(channel.ok());
    (*channel)->send(Heartbeat{});
    return serve_channel(loop, **channel, false);
  }
  auto channel = ring_connect(loop, endpoint);
  CHECK(channel.ok());
  return serve_channel(loop, **channel, name == "ring-call");
}

Measured measure_raw(std::string_view metric, double seconds, const std::string& endpoint,
                     const std::function<void()>& start_peer) {
  zmq::context_t context(1);
  zmq::socket_t socket(context, zmq::socket_type::router);
  socket.set(zmq::sockopt::linger, 1000);  // ms, for the last message
  socket.bind(endpoint);
  start_peer();
  zmq::message_t identity, hello;
  (void)socket.recv(identity);
  (void)socket.recv(hello);
  const std::array<char, 24> header{};
  const std::array<char, kBytes> payload{};
  const auto send = [&](std::size_t bytes) {
    socket.send(zmq::str_buffer("peer"), zmq::send_flags::sndmore);
    socket.send(zmq::buffer(header), zmq::send_flags::sndmore);
    socket.send(zmq::buffer(payload.data(), bytes), zmq::send_flags::none);
  };
  const Measured measured = measure(
      metric, seconds, [&] { send(kBytes); },
      [&] {
        zmq::message_t from, first, second;
        (void)socket.recv(from);
        (void)socket.recv(first);
        (void)socket.recv(second);
        return 1;
      });
  send(0);
  return measured;
}

Measured run_case(std::string_view metric, const std::string& name, const std::string& placement,
                  double seconds) {
  const TemporaryDirectory directory;
  const std::string path = (directory.path() / "doorbell").string();
  const std::string endpoint = name.starts_with("ring") ? path : "ipc://" + path;
  std::unique_ptr<StartedProcess> peer;
  const auto start_peer = [&] {
    std::vector<std::string> command{"/proc/self/exe", "serve", name, placement, endpoint};
    if (name == "ring-python")
      command = {BULKHEAD_PYTHON, BULKHEAD_SOURCE_DIR "/tests/bench/doorbell_peer.py", path};
    peer = std::make_unique<StartedProcess>(std::move(command));
  };
  place(placement);
  if (name == "zmq-inline") return measure_raw(metric, seconds, endpoint, start_peer);
  EventLoop loop;
  if (name == "ring-spin") loop.spin_for(EventLoop::kMaxSpin);
  std::unique_ptr<Channel> channel;
  if (name == "zeromq-channel") {
    const auto listener = listen_channel(loop, endpoint, {.one_peer = true},
                                         [&](std::unique_ptr<Channel> from) { channel = std::move(from); });
    CHECK(listener.ok());
    start_peer();
    loop.run_until([&] { return channel != nullptr; });
    const Measured measured = measure_channel(metric, seconds, loop, *channel, small_message(), true);
    peer->signal(SIGTERM);
    return measured;
  }
  const auto listener =
      ring_listen(loop, path, {}, [&](Result<std::unique_ptr<Channel>> from) { channel = *std::move(from); });
  CHECK(listener.ok());
  start_peer();
  loop.run_until([&] { return channel != nullptr; });
  const Measured measured = measure_channel(metric, seconds, loop, *channel,
                                            name == "ring-call" ? call_message() : small_message(), false);
  channel.reset();
  return measured;
}

// ----- The parts -----

template <class Action>
double nanos_of(const Action& action) {
  constexpr int kTimes = 200'000;
  double best = 1e18;
  for (int round = 0; round < 5; ++round) {
    const auto start = Clock::now();
    for (int i = 0; i < kTimes; ++i) action();
    best = std::min(best, micros_since(start) * 1e3 / kTimes);
  }
  return best;
}

void print_nanos(const char* part, double nanos) {
  std::printf("{\"part\": \"%s\", \"ns\": %.1f}\n", part, nanos);
}

void measure_codec() {
  const std::array messages{std::pair("64 B envelope", small_message()), std::pair("call", call_message()),
                            std::pair("reply", reply_message())};
  for (const auto& [name, message] : messages) {
    const Frames frames = encode(message);
    std::printf("{\"part\": \"%s\", \"bytes\": %zu}\n", name, frames[0].size);
    print_nanos((std::string("encode ") + name).c_str(), nanos_of([&] { (void)encode(message); }));
    print_nanos((std::string("decode ") + name).c_str(), nanos_of([&] { (void)decode(frames); }));
  }
}

// A descriptor that is always ready is what a turn finds.
void measure_turn() {
  const UniqueFd event(eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC));
  EventLoop loop;
  long calls = 0;
  const auto watch = loop.watch_readable(event.get(), [&] { ++calls; });
  pollfd item{event.get(), POLLIN, 0};
  print_nanos("poll of one descriptor", nanos_of([&] { ::poll(&item, 1, 0); }));
  print_nanos("turn with one descriptor", nanos_of([&] { loop.run_ready(); }));
  const TemporaryDirectory directory;
  const std::string endpoint = "ipc://" + (directory.path() / "turn").string();
  std::unique_ptr<Channel> far;
  const auto listener =
      listen_channel(loop, endpoint, {}, [&](std::unique_ptr<Channel> peer) { far = std::move(peer); });
  CHECK(listener.ok());
  const auto near = connect_channel(loop, endpoint);
  CHECK(near.ok());
  (*near)->send(Heartbeat{});
  loop.run_until([&] { return far != nullptr; });
  print_nanos("turn with one descriptor and three idle ZeroMQ sockets", nanos_of([&] { loop.run_ready(); }));
}

void print(std::string_view metric, Measured measured) {
  if (metric == "throughput") {
    std::printf("{\"calls_per_s\": %.1f}\n", measured.calls_per_second);
    return;
  }
  std::vector<double>& micros = measured.micros;
  std::sort(micros.begin(), micros.end());
  std::printf("{\"min\": %.3f, \"median\": %.3f, \"p99\": %.3f, \"n\": %zu}\n", micros.front(),
              micros[micros.size() / 2], micros[micros.size() * 99 / 100], micros.size());
}

}  // namespace
}  // namespace bulkhead

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.size() == 1 && words[0] == "codec") return bulkhead::measure_codec(), 0;
  if (words.size() == 1 && words[0] == "turn") return bulkhead::measure_turn(), 0;
  if (words.size() == 4 && words[0] == "serve") return bulkhead::serve(words[1], words[2], words[3]);
  if (words.size() != 4) return 2;
  bulkhead::print(words[0], bulkhead::run_case(words[0], words[1], words[2], std::stod(words[3])));
  return 0;
}
