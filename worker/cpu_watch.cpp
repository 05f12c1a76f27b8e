#include "cpu_watch.h"

#include <algorithm>
#include <sched.h>

#include <ATen/Parallel.h>

namespace bulkhead {

void CpuWatch::look() {
  constexpr std::uint64_t kEvery = 16;
  if (looks_++ % kEvery != 0) return;
  const auto threads = std::min<std::int64_t>(at::get_num_threads(), kMostThreads);
  at::parallel_for(0, threads, 1, [this](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      cpu_[static_cast<std::size_t>(i)].store(::sched_getcpu() + 1, std::memory_order_relaxed);
    }
  });
}

std::vector<std::int64_t> CpuWatch::cpus() const {
  std::vector<std::int64_t> cpus;
  for (const auto& seen : cpu_) {
    const int cpu = seen.load(std::memory_order_relaxed) - 1;
    if (cpu >= 0 && std::ranges::find(cpus, cpu) == cpus.end()) cpus.push_back(cpu);
  }
  return cpus;
}

}  // namespace bulkhead
