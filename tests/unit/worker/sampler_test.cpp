// The sampler's promises: every sample once an epoch, the same order however it
// is split over ranks, nothing but numbers as state.
#include "data/sampler.h"

#include <algorithm>
#include <set>

#include <gtest/gtest.h>

namespace bulkhead {
namespace {

using Samples = std::vector<std::int64_t>;

Samples epoch_of(Sampler& sampler, std::int64_t epoch) {
  Samples all;
  for (std::int64_t batch = 0; batch < sampler.batches_per_epoch(); ++batch) {
    const auto indices = sampler.indices(epoch, batch);
    all.insert(all.end(), indices.begin(), indices.end());
  }
  return all;
}

TEST(Sampler, GivesEachSampleOnceAnEpoch) {
  Sampler sampler({.size = 100, .batch_size = 10});
  const auto samples = epoch_of(sampler, 0);
  EXPECT_EQ(samples.size(), 100U);
  EXPECT_EQ(std::set(samples.begin(), samples.end()).size(), 100U);
  EXPECT_EQ(*std::max_element(samples.begin(), samples.end()), 99);
}

TEST(Sampler, GivesTwoRanksTheBatchOfOneRankWithTwiceTheSize) {
  Sampler whole({.size = 103, .batch_size = 8, .seed = 7});
  Sampler first({.size = 103, .batch_size = 4, .rank = 0, .world_size = 2, .seed = 7});
  Sampler second({.size = 103, .batch_size = 4, .rank = 1, .world_size = 2, .seed = 7});
  ASSERT_EQ(whole.batches_per_epoch(), 12);
  ASSERT_EQ(first.batches_per_epoch(), 12);
  for (std::int64_t batch = 0; batch < 12; ++batch) {
    Samples joined;
    for (auto* sampler : {&first, &second}) {
      const auto indices = sampler->indices(3, batch);
      joined.insert(joined.end(), indices.begin(), indices.end());
    }
    const auto expected = whole.indices(3, batch);
    EXPECT_TRUE(std::equal(joined.begin(), joined.end(), expected.begin(), expected.end()))
        << "batch " << batch;
  }
}

TEST(Sampler, ShufflesEachEpochAndSeedInItsOwnWay) {
  Sampler sampler({.size = 64, .batch_size = 8, .seed = 1});
  Sampler other({.size = 64, .batch_size = 8, .seed = 2});
  const auto first = epoch_of(sampler, 0);
  EXPECT_NE(first, epoch_of(sampler, 1));
  EXPECT_NE(first, epoch_of(other, 0));
  EXPECT_FALSE(std::is_sorted(first.begin(), first.end()));
}

TEST(Sampler, DependsOnNothingThatWasAskedBefore) {
  Sampler walked({.size = 64, .batch_size = 8});
  for (std::int64_t epoch = 0; epoch < 3; ++epoch) epoch_of(walked, epoch);
  Sampler fresh({.size = 64, .batch_size = 8});
  const auto a = walked.indices(1, 5);
  const auto b = fresh.indices(1, 5);
  EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin(), b.end()));
}

// The order is part of what makes a run reproducible over versions: a change
// here changes every run and every resume.
TEST(Sampler, KeepsItsOrderOverVersions) {
  Sampler sampler({.size = 10, .batch_size = 10, .seed = 1});
  const auto order = sampler.indices(0, 0);
  EXPECT_EQ(Samples(order.begin(), order.end()), (Samples{5, 7, 3, 0, 9, 6, 2, 1, 4, 8}));
}

TEST(Sampler, HasNoBatchWhenTheSplitIsSmallerThanOne) {
  EXPECT_EQ(Sampler({.size = 7, .batch_size = 4, .world_size = 2}).batches_per_epoch(), 0);
}

TEST(ValidationSampler, CoversEverySampleOnceOverAllRanks) {
  for (const std::int64_t world_size : {1, 2, 3, 8}) {
    Samples seen;
    for (std::int64_t rank = 0; rank < world_size; ++rank) {
      const ValidationSampler sampler({.size = 25, .batch_size = 4, .rank = rank, .world_size = world_size});
      for (std::int64_t batch = 0; batch < sampler.batches(); ++batch) {
        const auto indices = sampler.indices(batch);
        EXPECT_EQ(indices.front(), (rank + batch * world_size) * 4);
        seen.insert(seen.end(), indices.begin(), indices.end());
      }
    }
    std::sort(seen.begin(), seen.end());
    ASSERT_EQ(seen.size(), 25U) << world_size << " ranks";
    for (std::int64_t i = 0; i < 25; ++i) EXPECT_EQ(seen[static_cast<std::size_t>(i)], i);
  }
}

TEST(ValidationSampler, HasNothingToDoForAnEmptySplit) {
  EXPECT_EQ(ValidationSampler({.size = 0, .batch_size = 4, .rank = 3, .world_size = 4}).batches(), 0);
}

}  // namespace
}  // namespace bulkhead
