#include "restart_policy.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace bulkhead {
namespace {

using namespace std::chrono_literals;
constexpr Duration kFirstDelay = 100ms;
constexpr Duration kLongestDelay = 5s;

// Doubles without overflow: it stops at the cap.
Duration delay_after(int in_a_row) {
  if (in_a_row <= 1) return Duration::zero();
  Duration delay = kFirstDelay;
  for (int i = 2; i < in_a_row && delay < kLongestDelay; ++i) delay *= 2;
  return std::min(delay, kLongestDelay);
}

std::string counted(std::int64_t number, const char* one) {
  return std::to_string(number) + " " + one + (number == 1 ? "" : "s");
}

}  // namespace

RestartDecision RestartPolicy::next(std::span<const TimePoint> deaths, TimePoint now, int in_a_row) const {
  // In seconds as doubles: a window of years must not overflow nanoseconds.
  const auto recent = std::count_if(deaths.begin(), deaths.end(), [&](TimePoint death) {
    return std::chrono::duration<double>(now - death).count() < config_.within_seconds;
  });
  char window[32];
  std::snprintf(window, sizeof window, "%g", config_.within_seconds);
  std::string reason = counted(recent, "death") + " within " + window + " s, " +
                       counted(config_.restarts, "restart") + " allowed";
  if (recent > config_.restarts) return {false, {}, std::move(reason)};
  return {true, delay_after(in_a_row), std::move(reason)};
}

}  // namespace bulkhead
