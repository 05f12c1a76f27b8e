// The finished data set of rows: samples of tokens and labels, cut into the
// three splits.  It is what a run keeps when plugins took part in making it
// (rows_file.h), so it holds all that a rank needs.
//
// A sample is as the model learns it: labels[i] is what follows input_ids[i],
// and kNotLearned where that is not learned.  Values; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/split.h"
#include "protocol/number_lists.h"
#include "protocol/result.h"
#include "protocol/run_config.h"

namespace bulkhead {

struct Rows;

// A label that the loss leaves out (torch's ignore_index).
inline constexpr std::int64_t kNotLearned = -100;

struct TokenRows {
  std::vector<std::int32_t> input_ids;  // sample after sample
  std::vector<std::int32_t> labels;     // as many
  std::vector<std::int64_t> ends;       // of each sample
  SplitSizes sizes;                     // in samples; in order of the rows
  std::int64_t dropped = 0;             // rows in which nothing is learned

  std::int64_t vocabulary = 0;   // ids are below
  std::int64_t start_token = 0;  // what a text written by the model begins after
  // How ids become text: "char" by `characters`, in order of their ids; "gpt2"; "ids": they do not.
  std::string decoding;
  std::string characters;

  std::int64_t count() const { return static_cast<std::int64_t>(ends.size()); }
  struct Sample {
    std::span<const std::int32_t> input_ids;
    std::span<const std::int32_t> labels;
  };
  Sample sample(std::int64_t index) const;
};

// The rows as tokens, without a plugin's help: of a row with `text` the text,
// all of which is learned; of one with `messages`, a list of {role, content}, a
// line "Role: content" each, of which the content of the assistant's and their
// line ends are learned.  tokenizer char: the vocabulary is the characters of
// the training rows, and one more id stands for any other character.
//
// The rows are cut into splits first (split.h), samples to `context` tokens, and
// those in which nothing is learned are dropped.  Fails naming the row, and
// where training has no sample.
Result<TokenRows> tokenise(const Rows& rows, const DataConfig& config, std::int64_t context);

// The same of what a plugin's encode gave, whose ids are below the vocabulary
// of gpt2 where that is config.tokenizer, else as large as they come.  `ids`
// and `labels` have equal lengths (that is the caller's check).
Result<TokenRows> tokenise_encoded(const NumberLists& ids, const NumberLists& labels,
                                   const DataConfig& config, std::int64_t context);

}  // namespace bulkhead
