// Which samples each rank trains on, as a pure function of (seed, epoch, batch,
// rank): nothing is drawn in order, so a resumed run needs no sampler state.
//
// The W·B samples of a global batch are the same, in the same order, however
// they are split over ranks.  Knows nothing of data.  One thread per object.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace bulkhead {

struct SamplerOptions {
  std::int64_t size = 0;        // samples in the split
  std::int64_t batch_size = 1;  // per rank and micro-batch
  std::int64_t rank = 0;
  std::int64_t world_size = 1;
  std::int64_t seed = 1;  // of the run
};

class Sampler {
 public:
  explicit Sampler(const SamplerOptions& options);

  // Micro-batches per rank in one epoch; an incomplete last global batch is
  // dropped.  0 when the split is smaller than one global batch.
  std::int64_t batches_per_epoch() const;

  // This rank's samples of global batch `batch` of `epoch`, both from 0: block
  // `rank` of positions [batch·W·B, (batch+1)·W·B) in the epoch's order, which
  // is a Fisher–Yates shuffle by Philox(seed, "sampler", epoch).  Valid until
  // an epoch other than this one is asked for.
  std::span<const std::int64_t> indices(std::int64_t epoch, std::int64_t batch);

 private:
  void shuffle(std::int64_t epoch);

  SamplerOptions options_;
  std::int64_t epoch_ = -1;
  std::vector<std::int64_t> order_;
};

// Validation goes through its split in order: batch k of W ranks is the k-th
// run of `batch_size` samples, and rank r takes batches r, r+W, …  Every sample
// counts once; the last batch may be short, so weigh results by sample count.
class ValidationSampler {
 public:
  explicit ValidationSampler(const SamplerOptions& options) : options_(options) {}

  // Batches of this rank; ranks may differ by one.
  std::int64_t batches() const;

  // Samples of this rank's batch `index`, from 0.
  std::vector<std::int64_t> indices(std::int64_t index) const;

 private:
  SamplerOptions options_;
};

}  // namespace bulkhead
