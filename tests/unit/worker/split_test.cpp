// How a data set is cut into training, validation and test.
#include "data/split.h"

#include <gtest/gtest.h>

namespace bulkhead {
namespace {

void expect_sizes(const SplitSizes& sizes, std::int64_t train, std::int64_t validation, std::int64_t test) {
  EXPECT_EQ(sizes.train, train);
  EXPECT_EQ(sizes.validation, validation);
  EXPECT_EQ(sizes.test, test);
}

TEST(Split, PutsTheTestLastAndTheValidationBeforeIt) {
  const SplitSizes sizes = split_samples(100, 0.1, 0.2);
  expect_sizes(sizes, 70, 10, 20);
  EXPECT_EQ(sizes.range(Split::kTrain).first, 0);
  EXPECT_EQ(sizes.range(Split::kValidation).first, 70);
  EXPECT_EQ(sizes.range(Split::kTest).first, 80);
  EXPECT_EQ(sizes.range(Split::kTest).count, 20);
}

TEST(Split, GivesEverySampleToOnePartWhateverTheFractions) {
  for (std::int64_t count = 0; count < 200; ++count) {
    for (const double validation : {0.0, 0.05, 0.1, 0.3}) {
      for (const double test : {0.0, 0.1, 0.25, 0.6}) {
        const SplitSizes sizes = split_samples(count, validation, test);
        ASSERT_GE(sizes.train, 0);
        ASSERT_GE(sizes.validation, 0);
        ASSERT_GE(sizes.test, 0);
        ASSERT_EQ(sizes.train + sizes.validation + sizes.test, count);
      }
    }
  }
}

TEST(Split, LosesNoSampleToRounding) {
  // 1 − 0.9 and 1 − 0.1 − 0.6 are a little less than they are written.
  expect_sizes(split_samples(10, 0.9, 0), 1, 9, 0);
  expect_sizes(split_samples(10, 0.1, 0.6), 3, 1, 6);
}

TEST(Split, LeavesPartsEmptyThatNobodyAskedFor) {
  expect_sizes(split_samples(5, 0, 0), 5, 0, 0);
  expect_sizes(split_samples(5, 0.2, 0), 4, 1, 0);
  expect_sizes(split_samples(5, 0, 0.2), 4, 0, 1);
}

TEST(Split, RefusesFractionsThatCannotBeMeant) {
  const auto failure = [](const std::string& type, double validation, double test) {
    DataConfig config;
    config.type = type;
    config.validation_fraction = validation;
    config.test_fraction = test;
    const auto checked = check_fractions(config);
    return checked ? "" : checked.error().message;
  };
  EXPECT_EQ(failure("text", 0.1, 0.2), "");
  EXPECT_EQ(failure("text", 1, 0), "data.validation_fraction: must be at least 0 and below 1");
  EXPECT_EQ(failure("text", -0.1, 0), "data.validation_fraction: must be at least 0 and below 1");
  EXPECT_EQ(failure("mnist", -1, 5), "");
  EXPECT_EQ(failure("mnist", 1, 0), "data.validation_fraction: must be at least 0 and below 1");
  EXPECT_EQ(failure("csv", 0.1, -1), "data.test_fraction: must be at least 0 and below 1");
  EXPECT_EQ(failure("csv", 0.5, 0.5),
            "data.test_fraction: with data.validation_fraction it leaves nothing for training");
}

}  // namespace
}  // namespace bulkhead
