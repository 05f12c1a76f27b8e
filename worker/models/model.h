// A model as the training loop sees it: a module whose parameters it trains,
// and a function from a batch to losses.
//
// The same seed gives the same parameters, bit for bit, on every rank and
// device (they are drawn on the CPU).  Knows nothing of optimizers, ranks or
// plugins.  Compute thread only.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "batch.h"
#include "data/facts.h"
#include "models/losses.h"
#include "protocol/result.h"
#include "protocol/run_config.h"

namespace torch::nn {
class Module;
}

namespace bulkhead {

struct Model {
  // Parameters in float32 with names that are stable over versions (they are
  // the keys of checkpoints); made on the CPU, module->to(device) moves them.
  std::shared_ptr<torch::nn::Module> module;

  // Takes a batch that fits the data (check_batch), on the module's device.
  std::function<Losses(const TensorBatch&)> forward;

  // gpt, llama: that many token ids, one after the other at temperature 0.8, beginning
  // after DatasetFacts::start_token; empty for other models.  The same seed and
  // parameters give the same tokens.  Leaves the module's mode as it was.
  std::function<std::vector<std::int64_t>(std::int64_t tokens, std::uint64_t seed)> sample;
};

// Its parameters, in module order; they share the module's storage.
std::vector<NamedTensor> named_parameters(const Model& model);

// Copies of its layers' parameters in `type`, under the parameters' names and on
// their device, in one buffer: the layers multiply with these from now on.  Who
// changes a parameter must write its copy (Optimizer does).  Once a model.
std::vector<NamedTensor> make_working_copies(const Model& model, at::ScalarType type);

// Builds and initialises a model, from config.from where it says so
// (hugging_face.h).  compute_type is kFloat, or kBFloat16 or kHalf for mixed
// precision: matrix products in that type from float32 parameters, normalisation,
// residual stream and loss in float32.  Fails where the model
// does not fit the data or its own numbers do not fit together, naming the key.
Result<Model> make_model(const ModelConfig& config, const DatasetFacts& facts, std::int64_t seed,
                         at::ScalarType compute_type);

}  // namespace bulkhead
