// Which part of the data a sample belongs to, and how a data set in a fixed
// order is cut into the three parts.  Values and pure functions; any thread.
#pragma once

#include <cstdint>

#include "protocol/result.h"
#include "protocol/run_config.h"

namespace bulkhead {

enum class Split { kTrain, kValidation, kTest };

// A run of neighbouring samples (or rows, or tokens).
struct SampleRange {
  std::int64_t first = 0;
  std::int64_t count = 0;
};

// How many samples each part has: training first, then validation, then test.
struct SplitSizes {
  std::int64_t train = 0;
  std::int64_t validation = 0;
  std::int64_t test = 0;

  SampleRange range(Split split) const;
};

// The last `test_fraction` of `count` samples tests, the `validation_fraction`
// before it validates, and what is in front of both trains.  Both ends are
// rounded down, so a part of a small set may be empty.
SplitSizes split_samples(std::int64_t count, double validation_fraction, double test_fraction);

// Whether both fractions are at least 0 and leave something for training.  For
// mnist alone a negative validation_fraction means "not given", and
// test_fraction means nothing (mnist.h).
Status check_fractions(const DataConfig& config);

}  // namespace bulkhead
