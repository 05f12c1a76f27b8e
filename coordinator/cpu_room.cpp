#include "cpu_room.h"

namespace bulkhead {
namespace {

// A rank that stands still for a larger share of its time needs its plugins
// more than its CPU.
constexpr double kWaits = 0.05;
// … for as long as it is then believed: hosts that are put aside as soon as they
// have caught up would fall behind again.
constexpr std::chrono::seconds kBelieved{30};

}  // namespace

void CpuRoom::heard(std::int64_t rank, const CpuUse& use, TimePoint now) {
  Rank& known = ranks_[rank];
  const double since = std::chrono::duration<double>(now - known.heard).count();
  if (use.waited_seconds - known.waited_seconds > kWaits * since) known.waits_until = now + kBelieved;
  known.waited_seconds = use.waited_seconds;
  known.heard = now;
  known.cpus.assign(use.cpus.begin(), use.cpus.end());
}

Cpus CpuRoom::for_hosts(TimePoint now) const {
  Cpus left = all_;
  for (const auto& [number, rank] : ranks_) {
    if (now < rank.waits_until) return all_;
    left = without(left, rank.cpus);
  }
  return left.empty() ? all_ : left;
}

}  // namespace bulkhead
