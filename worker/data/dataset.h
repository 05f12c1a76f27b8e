// The data of a run in memory, in three splits, handed out as batches by sample
// number.
//
// Does not shuffle, shard or prefetch (sampler.h, training loop); owns its
// data; immutable once loaded, so any thread may gather.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <variant>

#include "batch.h"
#include "data/captions.h"
#include "data/csv.h"
#include "data/facts.h"
#include "data/mnist.h"
#include "data/row_data.h"
#include "data/split.h"
#include "data/text.h"
#include "protocol/result.h"
#include "protocol/run_config.h"

namespace bulkhead {

class Dataset {
 public:
  using Data = std::variant<TextData, ImageData, TableData, CaptionData, RowData>;

  explicit Dataset(Data data) : data_(std::move(data)) {}

  // Samples; validation and test may have none, and then there is none.
  std::int64_t train_size() const { return size(Split::kTrain); }
  std::int64_t validation_size() const { return size(Split::kValidation); }
  std::int64_t test_size() const { return size(Split::kTest); }
  std::int64_t size(Split split) const;

  // A new batch of those samples, in that order, on the CPU; N = indices.size():
  //   text     input_ids, labels int64 [N,context], labels one token later
  //   images   images float32 [N,1,H,W] normalised by kMnistMean and kMnistStd, labels int64 [N]
  //   features features float32 [N,F] standardised (csv.h), labels int64 [N]
  //   captions images float32 [N,3,S,S], input_ids int64 [N,context] (captions.h)
  //   rows     input_ids, labels int64 [N,T], T that of the longest sample (row_data.h)
  // An index outside the split is our bug.  `memory`: where their tensors lie,
  // but for captions and rows.
  TensorBatch gather(Split split, std::span<const std::int64_t> indices, BatchMemory* memory = nullptr) const;

  // Whether samples can be had before they are made a batch, which is where the
  // sample hooks of plugins and collate stand: captions and rows.  gather() is
  // then collate(raw_samples()).  Where not, calling the other two is our bug.
  bool has_samples() const {
    return std::holds_alternative<CaptionData>(data_) || std::holds_alternative<RowData>(data_);
  }

  // Both without torch, in the wire form; captions.h and row_data.h have their
  // tensors.  collate() fails where a plugin has broken the batch.
  Batch raw_samples(Split split, std::span<const std::int64_t> indices) const;
  Result<Batch> collate(const Batch& raw) const;

  DatasetFacts facts() const;

 private:
  Data data_;
};

// Reads everything config names.  `context` is the model's, in tokens per
// sample; text, captions and rows need it.  Every failure is one sentence that begins with
// the run file's key.
Result<Dataset> load_dataset(const DataConfig& config, std::int64_t context);

// Whether a batch that has been through a plugin can be trained on: the right
// tensors with the right types and ranks, equal N, every token and label in range
// (a wrong one would read outside a table), an end in every caption, and of rows a
// label that is learned.  CPU tensors only.
Status check_batch(const TensorBatch& batch, const DatasetFacts& facts);

}  // namespace bulkhead
