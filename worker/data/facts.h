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
  kCaptions,  // images float32 [N,3,S,S], input_ids int64 [N,T]
  kRows,      // as text, but T differs from batch to batch, and a label may be −100: not learned
};

// "text", "images", "features", "captions", "rows"
const char* name_of(DataKind kind);

struct DatasetFacts {
  DataKind kind = DataKind::kText;

  // text, captions, rows: number of token ids.  text, rows: labels are ids too.  captions,
  // where the tokenizer has V ids (char: the characters of the training captions,
  // gpt2: 50257):
  //   0 … V − 1  text          V + 1  end
  //   V          start         V + 2  padding
  //                            V + 3  a character that training has not (char only)
  std::int64_t vocabulary = 0;
  // text, captions, rows: tokens per sample; a batch may hold shorter ones.
  std::int64_t context = 0;
  // text, rows: what a text written by the model begins after (a line's end where the
  // vocabulary has one).  captions: what every caption begins with.
  std::int64_t start_token = 0;
  // captions: what ends the text of every caption, and what fills the row behind
  // it.
  std::int64_t end_token = 0, padding_token = 0;
  // text, captions, rows: token ids to UTF-8, special tokens left out; empty for
  // other kinds.
  std::function<std::string(std::span<const std::int64_t>)> decode;

  // images, features: labels are 0 … classes − 1.
  std::int64_t classes = 0;

  std::int64_t channels = 0, height = 0, width = 0;  // images, captions
  std::int64_t features = 0;                         // features: columns beside the target
};

}  // namespace bulkhead
