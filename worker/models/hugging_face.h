// Models in Hugging Face's format: a folder of config.json and model.safetensors,
// or of model.safetensors.index.json and the files that it names.
//
// Read and checked, nothing believed and nothing fetched.  GPT-2, Llama and Qwen2.
// Errors begin with `model.from`, and name file and key.  Any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "batch.h"
#include "protocol/result.h"
#include "protocol/run_config.h"

namespace bulkhead::hugging_face {

struct Outline {
  ModelConfig config;           // what was asked for, with the sizes of config.json
  std::int64_t vocabulary = 0;  // rows of the token embedding
  std::int64_t positions = 0;   // the longest context that the model is made for
};

// config.json of the folder asked.from, for asked.type gpt or llama.  Fails where
// it is another architecture, or a variant that bulkhead would compute wrongly.
Result<Outline> read_outline(const ModelConfig& asked);

// Copies the folder's tensors (float32, float16, bfloat16) into the parameters
// of the same names.  Every parameter must be there in its shape, and nothing else:
// the error names the first that is not.  For gpt a "transformer." before all names
// is left out, and matrices of GPT-2's Conv1D are turned round.
Status load_parameters(const ModelConfig& config, const std::vector<NamedTensor>& parameters);

}  // namespace bulkhead::hugging_face
