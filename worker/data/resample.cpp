#include "data/resample.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "protocol/result.h"

namespace bulkhead {
namespace {

constexpr std::int64_t kChannels = 3;

// One output sample: neighbouring input samples and what each counts.
struct Window {
  std::int64_t first = 0;
  std::vector<float> weights;  // their sum is 1
};

Window average(double begin, double end, std::int64_t length) {
  Window window;
  window.first = std::min(static_cast<std::int64_t>(begin), length - 1);
  const auto last = std::min(static_cast<std::int64_t>(std::ceil(end)), length);
  for (std::int64_t i = window.first; i < last; ++i) {
    const double covered =
        std::min(end, static_cast<double>(i + 1)) - std::max(begin, static_cast<double>(i));
    window.weights.push_back(static_cast<float>(covered / (end - begin)));
  }
  return window;
}

Window between(double centre, std::int64_t length) {
  const double inside = std::clamp(centre, 0.0, static_cast<double>(length - 1));
  const double left = std::floor(inside);
  const auto share = static_cast<float>(inside - left);
  if (share == 0.0F) return {static_cast<std::int64_t>(left), {1.0F}};
  return {static_cast<std::int64_t>(left), {1.0F - share, share}};
}

// How `length` samples become `count`.
std::vector<Window> windows(std::int64_t length, std::int64_t count) {
  const double step = static_cast<double>(length) / static_cast<double>(count);
  std::vector<Window> all;
  all.reserve(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) {
    const auto at = static_cast<double>(i);
    all.push_back(step > 1 ? average(at * step, (at + 1) * step, length)
                           : between((at + 0.5) * step - 0.5, length));
  }
  return all;
}

// Pixel `i` of a row of RGB values under a window.
template <class Value>
float weighted(const Value* values, const Window& window, std::int64_t stride) {
  float sum = 0;
  for (std::size_t k = 0; k < window.weights.size(); ++k) {
    sum += window.weights[k] * static_cast<float>(values[static_cast<std::int64_t>(k) * stride]);
  }
  return sum;
}

}  // namespace

std::vector<std::uint8_t> square_of(const Picture& picture, std::int64_t side) {
  CHECK(side >= 1 && picture.height >= 1 && picture.width >= 1);
  const std::int64_t source = std::min(picture.height, picture.width);
  const std::int64_t top = (picture.height - source) / 2;
  const std::int64_t left = (picture.width - source) / 2;
  const auto along = windows(source, side);

  // Rows first, then columns.
  const std::int64_t row = side * kChannels;
  std::vector<float> narrow(static_cast<std::size_t>(source * row));
  float* out = narrow.data();
  for (std::int64_t y = 0; y < source; ++y) {
    const std::uint8_t* line = picture.pixels.data() + ((top + y) * picture.width + left) * kChannels;
    for (const Window& window : along) {
      for (std::int64_t c = 0; c < kChannels; ++c) {
        *out++ = weighted(line + window.first * kChannels + c, window, kChannels);
      }
    }
  }
  std::vector<std::uint8_t> square;
  square.reserve(static_cast<std::size_t>(side * row));
  for (const Window& window : along) {
    const float* lines = narrow.data() + window.first * row;
    for (std::int64_t x = 0; x < row; ++x) {
      const float value = std::clamp(weighted(lines + x, window, row) + 0.5F, 0.0F, 255.0F);
      square.push_back(static_cast<std::uint8_t>(value));
    }
  }
  return square;
}

}  // namespace bulkhead
