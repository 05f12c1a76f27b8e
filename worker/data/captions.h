// Pictures with captions: a folder of .jpg, .jpeg and .png files, each beside a
// .txt of the same stem; and the way from them to a batch in two steps, because
// plugins may stand between: raw_samples() gives pictures and texts as they
// are, collate() normalises and tokenises what came back.
//
// No torch here: the loop thread runs both between two plugins.  Everything is
// read and scaled at the start and kept in memory, image_size² × 3 bytes a
// picture.  Immutable once loaded; the const functions from any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/caption_tokens.h"
#include "data/split.h"
#include "protocol/result.h"
#include "protocol/run_config.h"
#include "protocol/tensor.h"

namespace bulkhead {

// The most bytes that a caption may have, from a file or from a plugin.
inline constexpr std::size_t kMaxCaptionBytes = 64 * 1024;

class CaptionData {
 public:
  // Reads config.path and every folder in it, but nothing whose name begins with
  // a dot and no links to folders; the samples are in the byte order of their
  // paths below it, and are cut into the splits in that order.  A picture (the
  // file's content decides how it is read, picture.h) is brought to
  // image_size × image_size (resample.h).  A caption is the first line of its
  // file without the white space around it, as EveryDream2 reads it; it may be
  // empty.  Texts without a picture are left alone.  Fails at the first
  // file that is missing, damaged, too large or not UTF-8, naming it.
  static Result<CaptionData> load(const DataConfig& config, std::int64_t context);

  const SplitSizes& sizes() const { return sizes_; }
  const CaptionTokens& tokens() const { return tokens_; }
  std::int64_t image_size() const { return image_size_; }
  std::int64_t context() const { return context_; }

  // What the sample hooks see, in the wire form (protocol/README.md, "Calls"),
  // N = indices.size():
  //   images                  uint8 [N,image_size,image_size,3], red first
  //   captions captions.ends  the captions as texts
  //   paths    paths.ends     the pictures' absolute paths
  //   sample                  int64 [N], the samples' numbers in the whole data
  //                           set; the training split begins at 0
  // An index outside the split is our bug.
  Batch raw_samples(Split split, std::span<const std::int64_t> indices) const;

  // What the model gets of such a batch, in the wire form:
  //   images     float32 [N,3,image_size,image_size], (x / 255 − 0.5) / 0.5
  //   input_ids  int64 [N,context] (caption_tokens.h)
  // Paths, numbers and whatever else is in the batch are left out.  Fails where
  // `images` or `captions` are not as above, as only a plugin can make them; the
  // sentence says what is wrong with which.
  Result<Batch> collate(const Batch& raw) const;

 private:
  CaptionData(const DataConfig& config, std::int64_t context, CaptionTokens tokens, SplitSizes sizes);

  std::int64_t image_size_;
  std::int64_t context_;
  CaptionTokens tokens_;
  SplitSizes sizes_;
  std::vector<std::string> paths_;
  std::vector<std::string> captions_;
  std::vector<std::uint8_t> pixels_;  // sample after sample, height, width, channel
};

}  // namespace bulkhead
