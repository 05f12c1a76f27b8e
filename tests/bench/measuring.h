// What every program of scripts/bench/dataplane measures, and how it says so:
//
//   PROGRAM METRIC[,METRIC…] CASE BYTES free|same_cpu SECONDS    one JSON line
//
// METRIC: latency (us: min, median, p99, n), throughput (calls_per_s, eight in
// flight), copies (of the tensor, per call: see count_copies.cpp).  Python's
// peers do the same with peers/measuring.py.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <functional>
#include <sched.h>
#include <string>
#include <string_view>
#include <unistd.h>
#include <vector>

#include "protocol/result.h"

namespace bulkhead::bench {

using Clock = std::chrono::steady_clock;
inline constexpr int kWindow = 8;         // calls in flight
inline constexpr int kCountedCalls = 20;  // for the copies

inline double micros_since(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

// Where this process and those that it starts may run.
inline void place(std::string_view placement) {
  if (placement != "same_cpu") return;
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  CPU_SET(0, &cpus);
  CHECK(::sched_setaffinity(0, sizeof cpus, &cpus) == 0);
}

struct Request {
  std::vector<std::string> metrics;
  std::string name;
  std::size_t bytes = 0;
  std::string placement;
  double seconds = 0;
};

// The command line, without the program; also goes where it says.
inline Request read_request(const std::vector<std::string>& words) {
  CHECK(words.size() == 5, "METRICS CASE BYTES free|same_cpu SECONDS");
  Request request{{}, words[1], std::stoull(words[2]), words[3], std::stod(words[4])};
  std::string_view rest = words[0];
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find(','), rest.size());
    request.metrics.emplace_back(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  place(request.placement);
  return request;
}

// One kind of call: `send` begins one, `receive` waits and returns how many have ended.
struct Calls {
  std::function<void()> send;
  std::function<int()> receive;

  void once() const {
    send();
    receive();
  }
};

inline void warm_up(const Calls& calls, double seconds) {
  const auto start = Clock::now();
  for (int i = 0; i < 2000 && micros_since(start) < seconds * 0.25e6; ++i) calls.once();
}

inline std::string latency(const Calls& calls, double seconds) {
  std::vector<double> micros;
  for (const auto start = Clock::now(); micros.size() < 5 || micros_since(start) < seconds * 1e6;) {
    const auto before = Clock::now();
    calls.once();
    micros.push_back(micros_since(before));
  }
  std::sort(micros.begin(), micros.end());
  char text[160];
  std::snprintf(text, sizeof text, R"("min": %.3f, "median": %.3f, "p99": %.3f, "n": %zu)", micros.front(),
                micros[micros.size() / 2], micros[micros.size() * 99 / 100], micros.size());
  return text;
}

inline std::string throughput(const Calls& calls, double seconds) {
  int in_flight = 0;
  long done = 0;
  const auto start = Clock::now();
  for (bool more = true; more || in_flight > 0;) {
    more = more && micros_since(start) < seconds * 1e6;
    for (; more && in_flight < kWindow; ++in_flight) calls.send();
    if (in_flight == 0) break;
    const int ended = calls.receive();
    in_flight -= ended;
    done += ended;
  }
  char text[64];
  std::snprintf(text, sizeof text, R"("calls_per_s": %.1f)",
                static_cast<double>(done) / micros_since(start) * 1e6);
  return text;
}

// The bytes that count_copies.cpp has counted in all processes: copied in memory, and through the kernel.
struct CountedBytes {
  std::uint64_t in_memory = 0;
  std::uint64_t through_kernel = 0;
};

inline CountedBytes counted_bytes() {
  const char* path = std::getenv("BULKHEAD_BENCH_COPIES");
  CHECK(path != nullptr, "copies are counted where count_copies.so is loaded");
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  CountedBytes counted;
  CHECK(fd >= 0 && ::pread(fd, &counted, sizeof counted, 0) == sizeof counted, path);
  ::close(fd);
  return counted;
}

inline std::string copies(const Calls& calls, std::size_t bytes) {
  const CountedBytes before = counted_bytes();
  for (int i = 0; i < kCountedCalls; ++i) calls.once();
  const CountedBytes after = counted_bytes();
  const double tensors = static_cast<double>(bytes) * kCountedCalls;
  const double in_memory = static_cast<double>(after.in_memory - before.in_memory) / tensors;
  const double through_kernel = static_cast<double>(after.through_kernel - before.through_kernel) / tensors;
  char text[96];
  std::snprintf(text, sizeof text, R"("copies": %.3f, "copies_kernel": %.3f)", in_memory + through_kernel,
                through_kernel);
  return text;
}

// Measures all that was asked for, and prints it.
inline void measure(const Request& request, const Calls& calls) {
  warm_up(calls, request.seconds);
  std::string line;
  for (const std::string& metric : request.metrics) {
    if (!line.empty()) line += ", ";
    if (metric == "latency") line += latency(calls, request.seconds);
    if (metric == "throughput") line += throughput(calls, request.seconds);
    if (metric == "copies") line += copies(calls, request.bytes);
  }
  std::printf("{%s}\n", line.c_str());
  std::fflush(stdout);
}

}  // namespace bulkhead::bench
