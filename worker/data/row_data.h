// Samples of a finished data set of rows, handed out as micro-batches.
//
// Immutable, without torch; any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "data/split.h"
#include "data/token_rows.h"
#include "protocol/result.h"
#include "protocol/run_config.h"
#include "protocol/tensor.h"

namespace bulkhead {

class RowData {
 public:
  // What a padded place holds as input; its label is kNotLearned, and the model
  // looks only back, so it changes nothing.
  static constexpr std::int64_t kPadding = 0;

  // Reads config.path and encodes it (tokenise()).
  static Result<RowData> load(const DataConfig& config, std::int64_t context);

  RowData(TokenRows rows, const DataConfig& config, std::int64_t context);

  const SplitSizes& sizes() const { return rows_->sizes; }
  const TokenRows& rows() const { return *rows_; }
  std::int64_t context() const { return context_; }

  // What collate gets, in the wire form (protocol/README.md, "Calls"):
  //   input_ids input_ids.ends  lists of unequal lengths, N = indices.size()
  //   labels    labels.ends     as long
  //   sample                    int64 [N], the samples' numbers in the whole data set
  // An index outside the split is our bug.
  Batch raw_samples(Split split, std::span<const std::int64_t> indices) const;

  // The batch where no plugin makes it: input_ids and labels int64 [N,T], padded
  // on the right to the longest sample.  Fails where the lists do not fit
  // together.
  Result<Batch> collate(const Batch& raw) const;

  // Ids as text; as numbers with spaces between where nobody knows better.
  std::string decode(std::span<const std::int64_t> tokens) const;

 private:
  std::shared_ptr<const TokenRows> rows_;  // shared with copies: decode functions outlive the data
  DataConfig config_;
  std::int64_t context_;
};

}  // namespace bulkhead
