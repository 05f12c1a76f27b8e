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
Duration delay_before(std::int64_t recent) {
  if (recent <= 1) return Duration::zero();
  Duration delay = kFirstDelay;
  for (std::int64_t i = 2; i < recent && delay < kLongestDelay; ++i) delay *= 2;
  return std::min(delay, kLongestDelay);
}

std::string counted(std::int64_t number, const char* one) {
  return std::to_string(number) + " " + one + (number == 1 ? "" : "s");
}

}  // namespace

RestartDecision RestartPolicy::next(std::span<const TimePoint> deaths, TimePoint now) const {
  // In seconds as doubles: a window of years must not overflow nanoseconds.
  const auto recent = std::count_if(deaths.begin(), deaths.end(), [&](TimePoint death) {
    return std::chrono::duration<double>(now - death).count() < config_.within_seconds;
  });
  char window[32];
  std::snprintf(window, sizeof window, "%g", config_.within_seconds);
  std::string reason = counted(recent, "death") + " within " + window + " s, " +
                       counted(config_.restarts, "restart") + " allowed";
  if (recent > config_.restarts) return {false, {}, std::move(reason)};
  return {true, delay_before(recent), std::move(reason)};
}

}  // namespace bulkhead
