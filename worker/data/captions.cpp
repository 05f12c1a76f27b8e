#include "data/captions.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <memory>
#include <utility>

#include "data/caption_files.h"
#include "data/files.h"
#include "data/picture.h"
#include "data/resample.h"
#include "protocol/texts.h"

namespace bulkhead {
namespace {

constexpr std::int64_t kChannels = 3;

Status check_numbers(const DataConfig& config, std::int64_t context) {
  if (context < CaptionTokens::kShortestContext) {
    return Error{ErrorCode::kMismatch, "model.context: " + std::to_string(context) +
                                           " must be at least 3 for captions: a start, a token, an end"};
  }
  if (config.image_size < 1) {
    return Error{ErrorCode::kMismatch,
                 "data.image_size: " + std::to_string(config.image_size) + " must be at least 1"};
  }
  if (config.batch_size < 2) {
    return Error{
        ErrorCode::kMismatch,
        "data.batch_size: " + std::to_string(config.batch_size) +
            " is too small for captions: the contrastive loss tells the pairs of a batch apart, so it "
            "needs at least 2"};
  }
  return check_fractions(config);
}

template <class Value>
Tensor tensor_of(std::string name, DType dtype, std::vector<std::int64_t> shape, std::vector<Value> values) {
  const auto owner = std::make_shared<const std::vector<Value>>(std::move(values));
  const Blob bytes{owner, reinterpret_cast<const std::byte*>(owner->data()), owner->size() * sizeof(Value)};
  return {std::move(name), dtype, std::move(shape), bytes};
}

// (x / 255 − 0.5) / 0.5 of each byte.
std::array<float, 256> make_levels() {
  std::array<float, 256> levels{};
  for (std::size_t i = 0; i < levels.size(); ++i) {
    levels[i] = (static_cast<float>(i) / 255.0F - 0.5F) / 0.5F;
  }
  return levels;
}

// [count,side,side,3] bytes to [count,3,side,side] floats.
std::vector<float> normalised(const std::uint8_t* pixels, std::int64_t count, std::int64_t side) {
  static const auto kLevels = make_levels();
  const std::int64_t plane = side * side;
  std::vector<float> values(static_cast<std::size_t>(count * kChannels * plane));
  for (std::int64_t sample = 0; sample < count; ++sample) {
    for (std::int64_t i = 0; i < plane; ++i) {
      for (std::int64_t c = 0; c < kChannels; ++c) {
        values[static_cast<std::size_t>((sample * kChannels + c) * plane + i)] = kLevels[*pixels++];
      }
    }
  }
  return values;
}

Error broken(const std::string& what) { return {ErrorCode::kMismatch, "the batch of samples " + what}; }

// The pictures of a batch from outside: uint8 [N,side,side,3].
Result<const Tensor*> checked_images(const Batch& raw, std::int64_t side) {
  const Tensor* images = find_tensor(raw, "images");
  if (images == nullptr) return broken("has no 'images'");
  const bool fits = images->dtype == DType::kUInt8 && images->shape.size() == 4 && images->shape[0] >= 0 &&
                    images->shape[1] == side && images->shape[2] == side && images->shape[3] == kChannels &&
                    images->bytes.size == static_cast<std::size_t>(images->size_bytes());
  if (fits) return images;
  const std::string length = std::to_string(side);
  return broken("has " + describe({*images}) + "; it must be images uint8[N," + length + "," + length +
                ",3]");
}

Result<std::vector<std::string>> checked_captions(const Batch& raw, std::int64_t count) {
  auto captions = unpack_texts(raw, "captions");
  if (!captions) return broken("has captions that cannot be read: " + captions.error().message);
  if (static_cast<std::int64_t>(captions->size()) != count) {
    return broken("has " + std::to_string(captions->size()) + " captions for " + std::to_string(count) +
                  " pictures");
  }
  for (std::size_t i = 0; i < captions->size(); ++i) {
    const std::string& caption = (*captions)[i];
    const std::string which = "has a caption, number " + std::to_string(i) + ", ";
    if (caption.size() > kMaxCaptionBytes) {
      return broken(which + "of " + std::to_string(caption.size()) + " bytes; at most " +
                    std::to_string(kMaxCaptionBytes) + " are taken");
    }
    if (const auto bad = first_invalid_utf8(caption)) {
      return broken(which + "that is not UTF-8 text at byte " + std::to_string(*bad));
    }
  }
  return captions;
}

// Appends the picture in that file, scaled.
Status read_picture(const std::filesystem::path& file, std::int64_t side, std::vector<std::uint8_t>& pixels) {
  const auto bytes = read_file(file, "data.path");
  if (!bytes) return bytes.error();
  const auto picture = decode_picture(*bytes);
  if (!picture) {
    return Error{picture.error().code, "data.path: " + file.string() + " " + picture.error().message};
  }
  const auto square = square_of(*picture, side);
  pixels.insert(pixels.end(), square.begin(), square.end());
  return ok_status();
}

}  // namespace

CaptionData::CaptionData(const DataConfig& config, std::int64_t context, CaptionTokens tokens,
                         SplitSizes sizes)
    : image_size_(config.image_size), context_(context), tokens_(std::move(tokens)), sizes_(sizes) {}

Result<CaptionData> CaptionData::load(const DataConfig& config, std::int64_t context) {
  if (auto numbers = check_numbers(config, context); !numbers) return numbers.error();
  const auto files = list_pictures(config.path);
  if (!files) return files.error();
  std::vector<std::string> captions;
  for (const auto& file : *files) {
    auto caption = read_caption(file);
    if (!caption) return caption.error();
    captions.push_back(std::move(*caption));
  }
  const auto sizes = split_samples(static_cast<std::int64_t>(files->size()), config.validation_fraction,
                                   config.test_fraction);
  auto tokens = CaptionTokens::make(config, std::span(captions).first(static_cast<std::size_t>(sizes.train)));
  if (!tokens) return tokens.error();

  CaptionData data(config, context, std::move(*tokens), sizes);
  data.captions_ = std::move(captions);
  data.pixels_.reserve(files->size() *
                       static_cast<std::size_t>(config.image_size * config.image_size * kChannels));
  for (const auto& file : *files) {
    if (auto read = read_picture(file, config.image_size, data.pixels_); !read) return read.error();
    data.paths_.push_back(file.string());
  }
  return data;
}

Batch CaptionData::raw_samples(Split split, std::span<const std::int64_t> indices) const {
  const SampleRange range = sizes_.range(split);
  const auto count = static_cast<std::int64_t>(indices.size());
  const auto picture_bytes = image_size_ * image_size_ * kChannels;
  std::vector<std::uint8_t> images;
  images.reserve(static_cast<std::size_t>(count * picture_bytes));
  std::vector<std::string> captions;
  std::vector<std::string> paths;
  std::vector<std::int64_t> samples;
  for (const std::int64_t index : indices) {
    CHECK(index >= 0 && index < range.count,
          "sample " + std::to_string(index) + " of " + std::to_string(range.count));
    const std::int64_t sample = range.first + index;
    const auto picture = pixels_.begin() + sample * picture_bytes;
    images.insert(images.end(), picture, picture + picture_bytes);
    captions.push_back(captions_[static_cast<std::size_t>(sample)]);
    paths.push_back(paths_[static_cast<std::size_t>(sample)]);
    samples.push_back(sample);
  }
  Batch raw = {
      tensor_of("images", DType::kUInt8, {count, image_size_, image_size_, kChannels}, std::move(images))};
  for (Tensor& tensor : pack_texts("captions", captions)) raw.push_back(std::move(tensor));
  for (Tensor& tensor : pack_texts("paths", paths)) raw.push_back(std::move(tensor));
  raw.push_back(tensor_of("sample", DType::kInt64, {count}, std::move(samples)));
  return raw;
}

Result<Batch> CaptionData::collate(const Batch& raw) const {
  const auto images = checked_images(raw, image_size_);
  if (!images) return images.error();
  const std::int64_t count = (*images)->shape[0];
  const auto captions = checked_captions(raw, count);
  if (!captions) return captions.error();

  std::vector<std::int64_t> tokens(static_cast<std::size_t>(count * context_));
  for (std::size_t i = 0; i < captions->size(); ++i) {
    const auto width = static_cast<std::size_t>(context_);
    tokens_.encode((*captions)[i], std::span(tokens).subspan(i * width, width));
  }
  const auto* pixels = reinterpret_cast<const std::uint8_t*>((*images)->bytes.data);
  return Batch{tensor_of("images", DType::kFloat32, {count, kChannels, image_size_, image_size_},
                         normalised(pixels, count, image_size_)),
               tensor_of("input_ids", DType::kInt64, {count, context_}, std::move(tokens))};
}

}  // namespace bulkhead
