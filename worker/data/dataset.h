// The data of a run in memory, in two splits, handed out as batches by sample
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
#include "data/csv.h"
#include "data/facts.h"
#include "data/mnist.h"
#include "data/text.h"
#include "protocol/result.h"
#include "protocol/run_config.h"

namespace bulkhead {

enum class Split { kTrain, kValidation };

class Dataset {
 public:
  using Data = std::variant<TextData, ImageData, TableData>;

  explicit Dataset(Data data) : data_(std::move(data)) {}

  // Samples; a validation split may have none.
  std::int64_t train_size() const { return size(Split::kTrain); }
  std::int64_t validation_size() const { return size(Split::kValidation); }
  std::int64_t size(Split split) const;

  // A new batch of those samples, in that order, on the CPU; N = indices.size():
  //   text     input_ids, labels int64 [N,context], labels one token later
  //   images   images float32 [N,1,H,W] normalised by kMnistMean and kMnistStd, labels int64 [N]
  //   features features float32 [N,F] standardised (csv.h), labels int64 [N]
  // An index outside the split is our bug.
  TensorBatch gather(Split split, std::span<const std::int64_t> indices) const;

  DatasetFacts facts() const;

 private:
  Data data_;
};

// Reads everything config names.  `context` is the model's, in tokens per
// sample; only text needs it.  Every failure is one sentence that begins with
// the run file's key.
Result<Dataset> load_dataset(const DataConfig& config, std::int64_t context);

// Whether a batch that has been through a plugin can be trained on: the right
// tensors with the right types and ranks, equal N, and every token and label in
// range (a wrong one would read outside a table).  CPU tensors only.
Status check_batch(const TensorBatch& batch, const DatasetFacts& facts);

}  // namespace bulkhead
