#include "sample_batch.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "abi_arguments.h"
#include "protocol/texts.h"

namespace bulkhead {
namespace {

constexpr std::int64_t kChannels = 3;

Error unfit(const std::string& what) { return {ErrorCode::kMismatch, what}; }

}  // namespace

Result<SampleBatch> SampleBatch::of(const Call& call) {
  SampleBatch batch(call);
  if (const Status read = batch.read(call); !read) {
    return unfit("the rank sent no batch for " + call.hook + ": " + read.error().message);
  }
  return batch;
}

Status SampleBatch::read(const Call& call) {
  const Tensor* samples = find_tensor(*input_, "sample");
  if (samples == nullptr || samples->dtype != DType::kInt64 || samples->shape.size() != 1) {
    return unfit("it needs \"sample\", int64 with one dimension");
  }
  samples_.resize(static_cast<std::size_t>(samples->shape[0]));
  if (!samples_.empty()) std::memcpy(samples_.data(), samples->bytes.data, samples->bytes.size);

  Result<std::vector<std::string>> paths = unpack_texts(*input_, "paths");
  if (!paths) return paths.error();
  paths_ = std::move(*paths);
  if (paths_.size() != size()) return unfit("\"paths\" and \"sample\" are of different lengths");

  if (call.hook != "transform_image") {
    Result<std::vector<std::string>> captions = unpack_texts(*input_, "captions");
    if (!captions) return captions.error();
    captions_ = std::move(*captions);
    if (captions_.size() != size()) return unfit("\"captions\" and \"sample\" are of different lengths");
  }
  return call.hook == "transform_caption" ? ok_status() : read_images();
}

Status SampleBatch::read_images() {
  images_ = find_tensor(*input_, "images");
  if (images_ == nullptr || images_->dtype != DType::kUInt8 || images_->shape.size() != 4 ||
      images_->shape[3] != kChannels) {
    return unfit("it needs \"images\", uint8 [N, H, W, 3]");
  }
  if (images_->shape[0] != static_cast<std::int64_t>(size())) {
    return unfit("\"images\" and \"sample\" are of different lengths");
  }
  image_shape_.assign(images_->shape.begin() + 1, images_->shape.end());
  image_strides_ = dense_strides(image_shape_);
  return ok_status();
}

std::size_t SampleBatch::image_bytes() const {
  return samples_.empty() ? 0 : images_->bytes.size / samples_.size();
}

abi::Call SampleBatch::call_of(std::size_t i, abi::Call common, const Philox::Key& key) {
  common.rng_key[0] = key[0];
  common.rng_key[1] = key[1];
  common.sample = samples_[i];
  common.path = abi::text(paths_[i]);
  common.tensor_count = 0;
  if (images_ != nullptr) {
    image_ = {abi::text("image"),  abi::DType::kUInt8,    static_cast<std::int32_t>(image_shape_.size()),
              image_shape_.data(), image_strides_.data(), images_->bytes.data + i * image_bytes()};
    common.tensor_count = 1;
    common.tensors = &image_;
  }
  if (!captions_.empty()) common.caption = abi::text(captions_[i]);
  return common;
}

std::string SampleBatch::take(std::size_t i, const Batch& changed,
                              const std::optional<std::string>& caption) {
  for (const Tensor& image : changed) {
    if (image.name != "image" || image.dtype != DType::kUInt8 || image.shape != image_shape_) {
      return "an image must keep the shape and type that came, not become " + describe({image});
    }
    if (new_images_.empty()) {
      const std::byte* first = images_->bytes.data;
      new_images_.assign(first, first + images_->bytes.size);
    }
    std::copy_n(image.bytes.data, image.bytes.size, new_images_.data() + i * image_bytes());
  }
  if (caption && *caption != captions_[i]) {
    captions_[i] = *caption;
    new_captions_ = true;
  }
  return {};
}

void SampleBatch::give(Reply& reply) const {
  for (const Tensor& tensor : *input_) {
    const bool caption = tensor.name == "captions" || tensor.name == ends_name("captions");
    if (tensor.name == "images" && !new_images_.empty()) {
      reply.batch.push_back({tensor.name, tensor.dtype, tensor.shape, Blob::of(new_images_)});
    } else if (!(caption && new_captions_)) {
      reply.kept.push_back(tensor.name);
    }
  }
  if (!new_captions_) return;
  for (Tensor& tensor : pack_texts("captions", captions_)) reply.batch.push_back(std::move(tensor));
}

}  // namespace bulkhead
