// Philox4x64-10, a counter-based generator (Salmon et al., "Parallel random
// numbers: as easy as 1, 2, 3", SC'11; constants as in Random123).
//
// The raw outputs equal those of numpy.random.Philox with the same key and of
// ctx.rng in a Python plugin.  Values only; one thread per object.
#pragma once

#include <array>
#include <cstdint>

namespace bulkhead {
inline namespace sdk_v5 {

class Philox {
 public:
  explicit Philox(std::array<std::uint64_t, 2> key) : key_(key) {}

  // The next raw output.
  std::uint64_t next() {
    if (used_ == block_.size()) refill();
    return block_[used_++];
  }

  // Uniform in [0, 1), with 53 random bits.
  double uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }

  // Uniform in [0, bound), without bias.  bound ≥ 1.
  std::uint64_t below(std::uint64_t bound) {
    const std::uint64_t limit = ~std::uint64_t{0} - ~std::uint64_t{0} % bound;
    for (;;) {
      const std::uint64_t draw = next();
      if (draw < limit) return draw % bound;
    }
  }

 private:
  using Block = std::array<std::uint64_t, 4>;
  __extension__ using Wide = unsigned __int128;

  // Counts first, then generates: the first block is that of counter 1.
  void refill() {
    for (std::uint64_t& word : counter_) {
      if (++word != 0) break;
    }
    Block block = counter_;
    std::array<std::uint64_t, 2> key = key_;
    for (int round = 0; round < 10; ++round) {
      const Wide a = static_cast<Wide>(0xD2E7470EE14C6C93ULL) * block[0];
      const Wide b = static_cast<Wide>(0xCA5A826395121157ULL) * block[2];
      block = {static_cast<std::uint64_t>(b >> 64) ^ block[1] ^ key[0], static_cast<std::uint64_t>(b),
               static_cast<std::uint64_t>(a >> 64) ^ block[3] ^ key[1], static_cast<std::uint64_t>(a)};
      key[0] += 0x9E3779B97F4A7C15ULL;
      key[1] += 0xBB67AE8584CAA73BULL;
    }
    block_ = block;
    used_ = 0;
  }

  std::array<std::uint64_t, 2> key_;
  Block counter_{};
  Block block_{};
  std::size_t used_ = 4;
};

}  // namespace sdk_v5
}  // namespace bulkhead
