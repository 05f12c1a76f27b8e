// GPT-2's byte-level BPE (Radford et al. 2019; the two files encoder.json and
// vocab.bpe of openai/gpt-2): text to token ids and back, lossless on any
// UTF-8 text.
//
// Trains nothing and knows no special tokens: "<|endoftext|>" in a text is
// encoded as the characters it is made of.  Immutable once loaded; any thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "protocol/result.h"

namespace bulkhead {

class Bpe {
 public:
  // Reads encoder.json and vocab.bpe in `folder`.  Fails when either is
  // missing or malformed, naming file, line and entry.
  static Result<Bpe> load(const std::filesystem::path& folder);

  Bpe(Bpe&&) noexcept;
  Bpe& operator=(Bpe&&) noexcept;
  ~Bpe();

  // Token ids of `text`, which must be UTF-8 (first_invalid_utf8).
  std::vector<std::int32_t> encode(std::string_view text) const;

  // The bytes of the tokens.  Ids outside the vocabulary give U+FFFD; a cut
  // through a character gives a part of it.
  std::string decode(std::span<const std::int64_t> tokens) const;

  // Number of tokens: 50257 for GPT-2.
  std::int64_t size() const { return static_cast<std::int64_t>(bytes_of_.size()); }

 private:
  struct Splitter;  // the compiled split pattern
  struct Merge {
    std::int32_t rank = 0;
    std::int32_t token = 0;
  };

  Bpe();
  Status load_tokens(const std::filesystem::path& file);
  Status load_merges(const std::filesystem::path& file);
  Status add_merge(std::string_view line, std::int32_t rank, const std::string& where);
  const Merge* merge_of(std::int32_t left, std::int32_t right) const;
  std::vector<std::int32_t> merge_word(std::string_view word) const;

  std::vector<std::string> bytes_of_;                       // by token id
  std::unordered_map<std::string, std::int32_t> token_of_;  // by bytes
  std::unordered_map<std::uint64_t, Merge> merges_;         // by pair of ids
  std::vector<std::int32_t> byte_tokens_;                   // by byte
  std::unique_ptr<Splitter> splitter_;
};

}  // namespace bulkhead
