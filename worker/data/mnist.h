// The four files of MNIST (LeCun, Cortes, Burges; IDX format, gzip) and of the
// sets that took its form.  Every count, size and label is checked before use.
//
// Knows nothing of tensors or batches.  Immutable once loaded; any thread.
#pragma once

#include <cstdint>
#include <string>

#include "data/split.h"
#include "protocol/result.h"
#include "protocol/run_config.h"

namespace bulkhead {

// Grey images of one size, row by row, with a label each.
struct ImageSet {
  std::int64_t count = 0;
  std::string pixels;  // count × height × width bytes
  std::string labels;  // count bytes
};

struct ImageData {
  std::int64_t height = 0, width = 0;
  std::int64_t classes = 0;  // largest label of the training files + 1
  ImageSet train;            // the training files, of which the end may validate
  ImageSet test;             // the t10k files
  SplitSizes sizes;
  bool validates_on_test = false;  // the t10k files are both

  // Where the images of a split are.
  struct Part {
    const ImageSet& set;
    SampleRange range;
  };
  Part part(Split split) const;
};

// Mean and standard deviation of MNIST's training pixels, of 0 … 1: a pixel p
// enters the model as (p / 255 − mean) / std.
inline constexpr float kMnistMean = 0.1307F;
inline constexpr float kMnistStd = 0.3081F;

// Reads train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz and the same of
// t10k in the folder config.path.  The t10k files are the test; they validate
// too where config.validation_fraction is negative (not given), else that share
// of the training files does, their end.  config.test_fraction says nothing
// here.  Fails on a missing, truncated or damaged file, naming it.
Result<ImageData> load_mnist(const DataConfig& config);

}  // namespace bulkhead
