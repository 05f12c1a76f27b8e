#include "data/split.h"

#include <cmath>
#include <string>

namespace bulkhead {
namespace {

// 0.7 is written 1 − 0.2 − 0.1, which is a little less: a whole number of
// samples must not lose one to that.
std::int64_t share(std::int64_t count, double fraction) {
  constexpr double kRounding = 1e-6;
  return static_cast<std::int64_t>(std::floor(static_cast<double>(count) * fraction + kRounding));
}

Status require_fraction(const char* key, double value) {
  if (value >= 0 && value < 1) return ok_status();
  return Error{ErrorCode::kMismatch, std::string(key) + ": must be at least 0 and below 1"};
}

}  // namespace

SampleRange SplitSizes::range(Split split) const {
  switch (split) {
    case Split::kTrain:
      return {0, train};
    case Split::kValidation:
      return {train, validation};
    case Split::kTest:
      return {train + validation, test};
  }
  CHECK(false, "unknown split");
  return {};
}

SplitSizes split_samples(std::int64_t count, double validation_fraction, double test_fraction) {
  const std::int64_t test_begin = share(count, 1.0 - test_fraction);
  const std::int64_t validation_begin = share(count, 1.0 - validation_fraction - test_fraction);
  return {validation_begin, test_begin - validation_begin, count - test_begin};
}

Status check_fractions(const DataConfig& config) {
  const bool by_files = config.type == "mnist";
  const bool not_given = by_files && config.validation_fraction < 0;
  const double validation = not_given ? 0 : config.validation_fraction;
  const double test = by_files ? 0 : config.test_fraction;
  if (auto valid = require_fraction("data.validation_fraction", validation); !valid) return valid;
  if (auto valid = require_fraction("data.test_fraction", test); !valid) return valid;
  if (validation + test < 1) return ok_status();
  return Error{ErrorCode::kMismatch,
               "data.test_fraction: with data.validation_fraction it leaves nothing for training"};
}

}  // namespace bulkhead
