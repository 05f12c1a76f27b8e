// The micro-batch of a sample hook: the plugin sees one sample at a time, the
// rank gets one batch back, in which only what changed is new.
//
// Checks what the rank sent and what the plugin gave.  Used on the host's one
// thread; what it was made from must outlive it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bulkhead/abi.h"
#include "protocol/messages.h"
#include "protocol/result.h"
#include "protocol/rng.h"

namespace bulkhead {

class SampleBatch {
 public:
  // kMismatch: the batch does not hold what this hook needs (protocol/README.md,
  // "Calls").
  static Result<SampleBatch> of(const Call& call);

  std::size_t size() const { return samples_.size(); }
  std::int64_t sample(std::size_t i) const { return samples_[i]; }

  // `common` as the call of the i-th sample.  It points into this object, whose
  // next call_of() may change what it points to.
  abi::Call call_of(std::size_t i, abi::Call common, const Philox::Key& key);

  // What the hook gave for the i-th sample; a sentence where that is not an image
  // like the one that came.
  std::string take(std::size_t i, const Batch& changed, const std::optional<std::string>& caption);

  // The whole, into the reply.
  void give(Reply& reply) const;

 private:
  explicit SampleBatch(const Call& call) : input_(&call.batch) {}
  Status read(const Call& call);
  Status read_images();
  std::size_t image_bytes() const;

  const Batch* input_;
  std::vector<std::int64_t> samples_;
  std::vector<std::string> paths_;
  std::vector<std::string> captions_;
  const Tensor* images_ = nullptr;
  std::vector<std::int64_t> image_shape_;  // [H, W, 3]
  std::vector<std::int64_t> image_strides_;
  abi::Tensor image_{};                // the sample's that is at work
  std::vector<std::byte> new_images_;  // empty: none changed
  bool new_captions_ = false;
};

}  // namespace bulkhead
