#include "data/sampler.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include "protocol/result.h"
#include "protocol/rng.h"

namespace bulkhead {

Sampler::Sampler(const SamplerOptions& options) : options_(options) {
  CHECK(options.batch_size >= 1 && options.world_size >= 1 && options.size >= 0);
  CHECK(options.rank >= 0 && options.rank < options.world_size);
}

std::int64_t Sampler::batches_per_epoch() const {
  return options_.size / (options_.world_size * options_.batch_size);
}

std::span<const std::int64_t> Sampler::indices(std::int64_t epoch, std::int64_t batch) {
  CHECK(epoch >= 0 && batch >= 0 && batch < batches_per_epoch());
  if (epoch != epoch_) shuffle(epoch);
  const std::int64_t first = (batch * options_.world_size + options_.rank) * options_.batch_size;
  return std::span(order_).subspan(static_cast<std::size_t>(first),
                                   static_cast<std::size_t>(options_.batch_size));
}

void Sampler::shuffle(std::int64_t epoch) {
  order_.resize(static_cast<std::size_t>(options_.size));
  std::iota(order_.begin(), order_.end(), std::int64_t{0});
  const std::array numbers{epoch};
  Philox random(stream_key(options_.seed, "sampler", numbers));
  for (std::size_t last = order_.size(); last > 1; --last) {
    std::swap(order_[last - 1], order_[static_cast<std::size_t>(random.below(last))]);
  }
  epoch_ = epoch;
}

std::int64_t ValidationSampler::batches() const {
  const std::int64_t all = (options_.size + options_.batch_size - 1) / options_.batch_size;
  return (all - options_.rank + options_.world_size - 1) / options_.world_size;
}

std::vector<std::int64_t> ValidationSampler::indices(std::int64_t index) const {
  CHECK(index >= 0 && index < batches());
  const std::int64_t first = (options_.rank + index * options_.world_size) * options_.batch_size;
  const std::int64_t count = std::min(options_.batch_size, options_.size - first);
  std::vector<std::int64_t> samples(static_cast<std::size_t>(count));
  std::iota(samples.begin(), samples.end(), first);
  return samples;
}

}  // namespace bulkhead
