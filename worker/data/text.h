// A text file as token ids, by characters or by GPT-2's BPE.
//
// Knows nothing of tensors, batches or shuffling.  Immutable once loaded; any
// thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "data/bpe.h"
#include "data/split.h"
#include "protocol/result.h"
#include "protocol/run_config.h"

namespace bulkhead {

// The vocabulary of a text by characters: its distinct code points in order of
// their numbers.
class Characters {
 public:
  // `text` must be UTF-8 (first_invalid_utf8).
  static Characters of(std::string_view text);

  // Ids of the characters of `text`.  One that is not in the vocabulary is
  // `unknown`; where there is no such id it is our bug: the vocabulary is made
  // from the text.
  std::vector<std::int32_t> encode(std::string_view text, std::optional<std::int32_t> unknown = {}) const;

  // Ids outside the vocabulary give U+FFFD.
  std::string decode(std::span<const std::int64_t> tokens) const;

  bool contains(std::string_view character) const { return token_of_.contains(std::string(character)); }
  std::int64_t size() const { return static_cast<std::int64_t>(characters_.size()); }

 private:
  std::vector<std::string> characters_;                     // by token id
  std::unordered_map<std::string, std::int32_t> token_of_;  // by character
};

using Tokenizer = std::variant<Characters, Bpe>;

// As config.tokenizer says: char takes its vocabulary from `text` (UTF-8), gpt2
// its files from config.vocabulary.  Fails naming the key.
Result<Tokenizer> make_tokenizer(const DataConfig& config, std::string_view text);

std::vector<std::int32_t> encode(const Tokenizer& tokenizer, std::string_view text);
std::string decode(const Tokenizer& tokenizer, std::span<const std::int64_t> tokens);
std::int64_t vocabulary_size(const Tokenizer& tokenizer);
// The token of "\n", else 0.
std::int64_t start_token(const Tokenizer& tokenizer);

struct TextData {
  // Shared with the decode function in DatasetFacts, which outlives this.
  std::shared_ptr<const Tokenizer> tokenizer;
  std::vector<std::int32_t> train;
  std::vector<std::int32_t> validation;
  std::vector<std::int32_t> test;
  std::int64_t context = 0;  // tokens per sample

  const std::vector<std::int32_t>& part(Split split) const {
    return split == Split::kTrain ? train : split == Split::kValidation ? validation : test;
  }

  // Samples in one part: each has `context` inputs and, shifted by one, as many
  // labels, so n tokens hold (n − 1) / context of them.
  static std::int64_t samples(const std::vector<std::int32_t>& part, std::int64_t context) {
    return part.empty() ? 0 : (static_cast<std::int64_t>(part.size()) - 1) / context;
  }
};

// Reads config.path and cuts its tokens into the three parts (split.h).  Fails
// when a file is missing or is not UTF-8, and when a part that is asked for is
// shorter than one sample.
Result<TextData> load_text(const DataConfig& config, std::int64_t context);

}  // namespace bulkhead
