// On which CPUs the compute thread and its OpenMP threads run.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

namespace bulkhead {

class CpuWatch {
 public:
  // Compute thread, in every step: it looks in some of them.
  void look();
  // Any thread.  As last seen; empty before.
  std::vector<std::int64_t> cpus() const;

 private:
  static constexpr std::size_t kMostThreads = 256;
  std::uint64_t looks_ = 0;
  std::array<std::atomic<int>, kMostThreads> cpu_{};  // plus one; 0: not seen
};

}  // namespace bulkhead
