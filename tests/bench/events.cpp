// What it costs the thread that trains to queue an event for a plugin:
//
//   bench_events SECONDS    one JSON line, microseconds
//
// `now` wakes the loop thread for each, `with_next` does not.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>

#include "support/observed_client.h"

namespace bulkhead {
namespace {

using Clock = std::chrono::steady_clock;

double median_of(PluginClient::When when, double seconds) {
  ObservedClient client;
  std::vector<double> micros;
  const auto start = Clock::now();
  for (std::int64_t step = 0; std::chrono::duration<double>(Clock::now() - start).count() < seconds; ++step) {
    const auto before = Clock::now();
    client.notify(step, when);
    const auto after = Clock::now();
    micros.push_back(std::chrono::duration<double, std::micro>(after - before).count());
    client.collect(step);
  }
  std::nth_element(micros.begin(), micros.begin() + static_cast<std::ptrdiff_t>(micros.size() / 2),
                   micros.end());
  return micros[micros.size() / 2];
}

}  // namespace
}  // namespace bulkhead

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const double seconds = std::stod(argv[1]);
  const double now = bulkhead::median_of(bulkhead::PluginClient::When::kNow, seconds);
  const double with_next = bulkhead::median_of(bulkhead::PluginClient::When::kWithNext, seconds);
  std::printf("{\"now_us\": %.3f, \"with_next_us\": %.3f}\n", now, with_next);
  return 0;
}
