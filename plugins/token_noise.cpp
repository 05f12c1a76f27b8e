// TokenNoise: replaces some input tokens of a text batch by random ones, so
// that a language model learns to distrust single tokens.  Labels stay.
//
//   with: {probability: 0.05,   # of replacing each token, 0 … 1
//          vocabulary: 0}       # new tokens are 0 … vocabulary − 1; 0 = up to the batch's largest token
//
// Batches without `input_ids` are left alone.
#include <algorithm>

#include "bulkhead/plugin.h"

struct TokenNoise : bulkhead::Plugin {
  static constexpr bool stateless = true;

  explicit TokenNoise(const bulkhead::Options& with)
      : probability_(with.get("probability", 0.05)), vocabulary_(with.get<std::int64_t>("vocabulary", 0)) {
    if (!(probability_ >= 0 && probability_ <= 1)) with.reject("probability", "must be between 0 and 1");
    if (vocabulary_ < 0) with.reject("vocabulary", "must be 0 or more");
  }

  void transform_train_batch(bulkhead::Batch& batch, bulkhead::Context& ctx) override {
    if (!batch.has("input_ids") || probability_ == 0) return;
    const auto tokens = batch.mutable_view<std::int64_t>("input_ids").flat();
    if (tokens.empty()) return;
    const std::int64_t count = vocabulary_ > 0 ? vocabulary_ : *std::ranges::max_element(tokens) + 1;
    for (std::int64_t& token : tokens) {
      if (ctx.rng.uniform() < probability_)
        token = static_cast<std::int64_t>(ctx.rng.below(static_cast<std::uint64_t>(count)));
    }
  }

 private:
  double probability_;
  std::int64_t vocabulary_;
};

BULKHEAD_PLUGIN(TokenNoise)
