#include "data/mnist.h"

#include <algorithm>
#include <filesystem>
#include <utility>
#include <vector>

#include "data/files.h"

namespace bulkhead {
namespace {

constexpr const char* kKey = "data.path";
constexpr std::size_t kLimitBytes = std::size_t{1} << 31U;
constexpr std::uint32_t kImagesMagic = 2051;  // unsigned bytes, 3 dimensions
constexpr std::uint32_t kLabelsMagic = 2049;  // unsigned bytes, 1 dimension
constexpr std::uint32_t kLargestSide = 8192;

Error malformed(const std::filesystem::path& file, const std::string& what) {
  return {ErrorCode::kMalformed, std::string(kKey) + ": " + file.string() + " " + what};
}

std::uint32_t big_endian(const std::string& bytes, std::size_t index) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i)
    value = (value << 8U) | static_cast<unsigned char>(bytes[4 * index + i]);
  return value;
}

struct Idx {
  std::vector<std::uint32_t> dimensions;
  std::string values;
};

// `magic` says the number of dimensions in its last byte.
Result<Idx> read_idx(const std::filesystem::path& file, std::uint32_t magic, const char* what) {
  auto bytes = read_gzip(file, kKey, kLimitBytes);
  if (!bytes) return bytes.error();
  const std::size_t rank = magic & 0xFFU;
  const std::size_t header = 4 * (1 + rank);
  if (bytes->size() < header) return malformed(file, "is shorter than its own header");
  if (const std::uint32_t found = big_endian(*bytes, 0); found != magic) {
    return malformed(file, "begins with the number " + std::to_string(found) + "; an IDX file of " + what +
                               " begins with " + std::to_string(magic));
  }
  Idx idx;
  std::uint64_t expected = 1;
  for (std::size_t i = 0; i < rank; ++i) {
    idx.dimensions.push_back(big_endian(*bytes, 1 + i));
    const bool overflows = __builtin_mul_overflow(expected, std::uint64_t{idx.dimensions.back()}, &expected);
    if (overflows || idx.dimensions.back() == 0)
      return malformed(file, "says that it holds no, or too many, values");
  }
  if (bytes->size() - header != expected) {
    return malformed(file, "holds " + std::to_string(bytes->size() - header) +
                               " values, but its header says " + std::to_string(expected));
  }
  idx.values = bytes->substr(header);
  return idx;
}

// Reads one pair of files; the first one read sets the size of all images.
Result<ImageSet> read_pair(const std::filesystem::path& folder, const std::string& prefix, ImageData& data) {
  const auto image_file = folder / (prefix + "-images-idx3-ubyte.gz");
  const auto label_file = folder / (prefix + "-labels-idx1-ubyte.gz");
  auto images = read_idx(image_file, kImagesMagic, "images");
  if (!images) return images.error();
  auto labels = read_idx(label_file, kLabelsMagic, "labels");
  if (!labels) return labels.error();
  const auto count = images->dimensions[0];
  if (labels->dimensions[0] != count) {
    return malformed(label_file, "has " + std::to_string(labels->dimensions[0]) + " labels for " +
                                     std::to_string(count) + " images");
  }
  const auto height = images->dimensions[1];
  const auto width = images->dimensions[2];
  if (height > kLargestSide || width > kLargestSide) {
    return malformed(image_file, "has images of more than 8192 pixels a side");
  }
  if (data.height == 0) {
    data.height = height;
    data.width = width;
  } else if (data.height != height || data.width != width) {
    return malformed(image_file, "has images of another size than the training images");
  }
  return ImageSet{count, std::move(images->values), std::move(labels->values)};
}

std::int64_t largest_label(const ImageSet& set) {
  const auto unsigned_less = [](char a, char b) {
    return static_cast<unsigned char>(a) < static_cast<unsigned char>(b);
  };
  return static_cast<unsigned char>(*std::max_element(set.labels.begin(), set.labels.end(), unsigned_less));
}

}  // namespace

ImageData::Part ImageData::part(Split split) const {
  const bool in_test_files = split == Split::kTest || (split == Split::kValidation && validates_on_test);
  if (in_test_files) return {test, {0, test.count}};
  return {train, sizes.range(split)};
}

Result<ImageData> load_mnist(const DataConfig& config) {
  if (auto fractions = check_fractions(config); !fractions) return fractions.error();
  const std::filesystem::path folder = config.path;
  ImageData data;
  auto train = read_pair(folder, "train", data);
  if (!train) return train.error();
  auto test = read_pair(folder, "t10k", data);
  if (!test) return test.error();
  data.train = std::move(*train);
  data.test = std::move(*test);
  data.classes = largest_label(data.train) + 1;
  if (largest_label(data.test) >= data.classes) {
    return malformed(folder / "t10k-labels-idx1-ubyte.gz", "has labels that the training set lacks");
  }
  data.validates_on_test = config.validation_fraction < 0;
  data.sizes = split_samples(data.train.count, std::max(config.validation_fraction, 0.0), 0);
  if (data.sizes.train == 0) {
    return Error{ErrorCode::kMismatch,
                 "data.validation_fraction: leaves no image of " + folder.string() + " for training"};
  }
  return data;
}

}  // namespace bulkhead
