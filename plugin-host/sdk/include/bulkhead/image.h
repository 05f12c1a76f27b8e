// What the sample hooks get: one image, one sample.  Valid inside the hook only,
// on its thread.
#pragma once

#include <cstdint>
#include <string>

#include "bulkhead/abi.h"
#include "bulkhead/batch.h"
#include "bulkhead/tensor_view.h"

namespace bulkhead {
inline namespace sdk_v5 {

// An RGB image, uint8 [height, width, 3].  Its size cannot be changed: all
// images of a batch have one.
class Image {
 public:
  std::int64_t height() const { return shape()[0]; }
  std::int64_t width() const { return shape()[1]; }
  const Shape& shape() const { return batch_.shape(kName); }

  // Read-only, without a copy: image.view()(y, x, channel).
  TensorView<const std::uint8_t> view() const { return batch_.view<std::uint8_t>(kName); }
  // Writable and dense, filled with the input; what is written is the output.
  TensorView<std::uint8_t> mutable_view() { return batch_.mutable_view<std::uint8_t>(kName); }

  // Made by the host, which keeps the input's memory.
  explicit Image(const abi::Tensor& tensor) : batch_(&tensor, 1) {}
  Image(const Image&) = delete;
  Image& operator=(const Image&) = delete;

  void hand_over(const abi::Host& host) const { batch_.hand_over(host); }

 private:
  static constexpr const char* kName = "image";  // the host calls it so
  Batch batch_;
};

// One sample of a data set of images and captions.  ctx.sample is its number,
// ctx.path the image's file.
struct Sample {
  Image image;
  std::string caption;  // UTF-8, at most 64 KiB

  Sample(const abi::Tensor& tensor, std::string_view text) : image(tensor), caption(text) {}
};

}  // namespace sdk_v5
}  // namespace bulkhead
