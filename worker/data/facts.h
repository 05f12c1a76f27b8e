// What a model must know of the data it is made for.  Values only; copies
// outlive the dataset.  Any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>

namespace bulkhead {

enum class DataKind {
  kText,      // input_ids, labels int64 [N,T]
  kImages,    // images float32 [N,C,H,W], labels int64 [N]
  kFeatures,  // features float32 [N,F], labels int64 [N]
};

// "text", "images", "features"
const char* name_of(DataKind kind);

struct DatasetFacts {
  DataKind kind = DataKind::kText;

  // text: number of token ids; labels are ids too.
  std::int64_t vocabulary = 0;
  // text: tokens per sample; a batch may hold shorter ones.
  std::int64_t context = 0;
  // text: what a text written by the model begins after (a line's end where the
  // vocabulary has one).
  std::int64_t start_token = 0;
  // text: token ids to UTF-8; empty for other kinds.
  std::function<std::string(std::span<const std::int64_t>)> decode;

  // images, features: labels are 0 … classes − 1.
  std::int64_t classes = 0;

  std::int64_t channels = 0, height = 0, width = 0;  // images
  std::int64_t features = 0;                         // features: columns beside the target
};

}  // namespace bulkhead
