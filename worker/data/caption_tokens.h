// Captions as rows of token ids, as CLIP lays them out (Radford et al. 2021):
// start, text, end, then padding up to the context.  A text that is too long is
// cut; its row still has its end.
//
// The ids of the text come first (text.h), the special ones directly after
// them; facts.h has the table.  Immutable; any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "data/text.h"
#include "protocol/result.h"
#include "protocol/run_config.h"

namespace bulkhead {

class CaptionTokens {
 public:
  // The shortest row that has room for a text: start, one token, end.
  static constexpr std::int64_t kShortestContext = 3;

  // tokenizer char: the vocabulary is the characters of `training`, and a
  // character that is not among them is the unknown token; gpt2: the files in
  // config.vocabulary.  Fails naming the key.
  static Result<CaptionTokens> make(const DataConfig& config, std::span<const std::string> training);

  // Fills `row` (at least kShortestContext long).  `caption` must be UTF-8.
  void encode(std::string_view caption, std::span<std::int64_t> row) const;

  // The text in a row, without the special tokens; unknown ones give U+FFFD.
  std::string decode(std::span<const std::int64_t> row) const;

  std::int64_t start() const { return texts_; }
  std::int64_t end() const { return texts_ + 1; }
  std::int64_t padding() const { return texts_ + 2; }
  // Number of ids, the special ones included.
  std::int64_t size() const { return texts_ + (has_unknown() ? 4 : 3); }

 private:
  explicit CaptionTokens(Tokenizer tokenizer);
  bool has_unknown() const { return std::holds_alternative<Characters>(*tokenizer_); }
  std::int64_t unknown() const { return texts_ + 3; }

  // Shared with the decode function in DatasetFacts, which outlives the data.
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::int64_t texts_ = 0;  // ids that stand for text
};

}  // namespace bulkhead
