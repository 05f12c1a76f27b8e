// Philox4x64-10 and the seeds of calls (DESIGN §6.5).
//
// The generator is counter based (Salmon et al., "Parallel random numbers: as
// easy as 1, 2, 3", SC'11; constants as in Random123) and gives the same raw
// 64-bit outputs here, in numpy.random.Philox and in the Python host.
// Values only; one thread per object.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

namespace bulkhead {

class Philox {
 public:
  using Key = std::array<std::uint64_t, 2>;

  explicit Philox(Key key) : key_(key) {}

  // The next raw output.  The first block is that of counter 1, as in numpy
  // (which increments before it generates).
  std::uint64_t next();

  // Uniform in [0, 1): (next() >> 11) · 2⁻⁵³.
  double uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }

  // Uniform in [0, bound) without bias, by rejection.  bound ≥ 1.
  std::uint64_t below(std::uint64_t bound);

 private:
  Key key_;
  std::array<std::uint64_t, 4> counter_{};
  std::array<std::uint64_t, 4> block_{};
  unsigned used_ = 4;
};

// The key of a call: the first 16 bytes, little endian, of the sha256 of the
// msgpack array [run_seed, plugin, rank, hook, step, micro].
Philox::Key call_key(std::int64_t run_seed, std::string_view plugin, std::int64_t rank, std::string_view hook,
                     std::int64_t step, std::int64_t micro);

// The key of one sample of a sample hook (transform_image, …): the msgpack array
// [run_seed, plugin, hook, epoch, sample], so neither rank nor step matters.
Philox::Key sample_key(std::int64_t run_seed, std::string_view plugin, std::string_view hook,
                       std::int64_t epoch, std::int64_t sample);

// Key of a named stream that belongs to no plugin, e.g. {"sampler", epoch}:
// the msgpack array [run_seed, name, numbers…].
Philox::Key stream_key(std::int64_t run_seed, std::string_view name, std::span<const std::int64_t> numbers);

}  // namespace bulkhead
