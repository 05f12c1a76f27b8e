#include "run_schema.h"
#include "run_schema_words.h"

namespace bulkhead {

// The member a row fills.
#define RUN(member) [](ConfigRef config) -> Slot { return &config.run->member; }

std::vector<KeySpec> model_keys() {
  const KeyCondition tokens{"model.type", {"gpt", "llama", "clip"}};
  const KeyCondition llama{"model.type", {"llama"}};
  return {
      {.key = "model.type",
       .kind = KeyKind::kChoice,
       .slot = RUN(model.type),
       .meaning = "gpt or llama for text and rows; cnn for mnist; mlp for mnist and csv; clip for captions",
       .defaults = {{"data.type", "text", "gpt"},
                    {"data.type", "rows", "gpt"},
                    {"data.type", "mnist", "cnn"},
                    {"data.type", "captions", "clip"},
                    {"", "", "mlp"}},
       .choices = {"gpt", "llama", "mlp", "cnn", "clip"}},
      {.key = "model.from",
       .kind = KeyKind::kPath,
       .slot = RUN(model.from),
       .meaning =
           "folder in Hugging Face's format, config.json and safetensors, whose weights training starts "
           "from and which says the model's size: GPT-2 for gpt, Llama and Qwen2 for llama",
       .belongs = {"model.type", {"gpt", "llama"}}},
      {.key = "model.layers",
       .kind = KeyKind::kInteger,
       .slot = RUN(model.layers),
       .meaning = "gpt and llama: transformer blocks; clip: those of the text encoder; mlp: hidden layers",
       .defaults = {{"model.type", "gpt", "6"}, {"model.type", "llama", "6"}, {"", "", "2"}},
       .range = from_to(1, 1000),
       .belongs = {"model.type", {"gpt", "llama", "mlp", "clip"}}},
      {.key = "model.heads",
       .kind = KeyKind::kInteger,
       .slot = RUN(model.heads),
       .meaning = "attention heads; width must be a multiple, except with model.head_dim",
       .defaults = {{"model.type", "clip", "4"}, {"", "", "6"}},
       .range = from_to(1, 1024),
       .belongs = tokens},
      {.key = "model.width",
       .kind = KeyKind::kInteger,
       .slot = RUN(model.width),
       .meaning = "gpt, llama and clip: embedding; mlp: units of a hidden layer; cnn: channels of the first "
                  "convolution",
       .defaults = {{"model.type", "gpt", "384"},
                    {"model.type", "llama", "384"},
                    {"model.type", "mlp", "128"},
                    {"model.type", "clip", "128"},
                    {"", "", "32"}},
       .range = from_to(1, 1 << 16)},
      {.key = "model.context",
       .kind = KeyKind::kInteger,
       .slot = RUN(model.context),
       .meaning = "gpt and llama: length of a sample, with rows the longest; clip: longest caption; what is "
                  "longer is cut",
       .unit = "tokens",
       .defaults = {{"model.type", "clip", "64"}, {"", "", "256"}},
       .range = from_to(1, 1 << 20),
       .belongs = tokens},
      {.key = "model.kv_heads",
       .kind = KeyKind::kInteger,
       .slot = RUN(model.kv_heads),
       .meaning =
           "heads of keys and values, each for as many of the attention heads (grouped-query attention); "
           "0 = model.heads",
       .defaults = always("0"),
       .range = from_to(0, 1024),
       .belongs = llama},
      {.key = "model.head_dim",
       .kind = KeyKind::kInteger,
       .slot = RUN(model.head_dim),
       .meaning = "width of a head, even; 0 = model.width / model.heads",
       .defaults = always("0"),
       .range = from_to(0, 1 << 12),
       .belongs = llama},
      {.key = "model.mlp_width",
       .kind = KeyKind::kInteger,
       .slot = RUN(model.mlp_width),
       .meaning = "inner units of SwiGLU; 0 = 8/3 of model.width, up to a multiple of 64",
       .defaults = always("0"),
       .range = from_to(0, 1 << 18),
       .belongs = llama},
      {.key = "model.rope_theta",
       .kind = KeyKind::kNumber,
       .slot = RUN(model.rope_theta),
       .meaning = "base of the rotary embedding's frequencies",
       .defaults = always("10000"),
       .range = above(1),
       .belongs = llama},
      {.key = "model.rope_scaling",
       .kind = KeyKind::kMapping,
       .slot = RUN(model.rope_scaling),
       .meaning =
           "what stretches these frequencies for longer contexts, as transformers' rope_scaling says it: "
           "{rope_type: llama3, factor: 8, low_freq_factor: 1, high_freq_factor: 4, "
           "original_max_position_embeddings: 8192} or {rope_type: linear, factor: 2}",
       .belongs = llama},
      {.key = "model.norm_eps",
       .kind = KeyKind::kNumber,
       .slot = RUN(model.norm_eps),
       .meaning = "added to the mean square in RMSNorm",
       .defaults = always("1.0e-5"),
       .range = above(0),
       .belongs = llama},
      {.key = "model.tied",
       .kind = KeyKind::kBoolean,
       .slot = RUN(model.tied),
       .meaning = "the head's weights are the token embedding's",
       .defaults = always("false"),
       .belongs = llama},
      {.key = "model.qkv_bias",
       .kind = KeyKind::kBoolean,
       .slot = RUN(model.qkv_bias),
       .meaning = "queries, keys and values have a bias, as in Qwen2",
       .defaults = always("false"),
       .belongs = llama},
      {.key = "model.activation_checkpointing",
       .kind = KeyKind::kBoolean,
       .slot = RUN(model.activation_checkpointing),
       .meaning = "backward computes each block again instead of keeping what it held: less memory, one more "
                  "forward pass of the blocks, the same numbers",
       .defaults = always("false"),
       .belongs = tokens},
  };
}

#undef RUN

bool folder_says(const std::string& key, const RunConfig& config) {
  if (config.model.from.empty()) return false;
  for (const char* name : {"layers", "heads", "width", "kv_heads", "head_dim", "mlp_width", "rope_theta",
                           "rope_scaling", "norm_eps", "tied", "qkv_bias"}) {
    if (key == std::string("model.") + name) return true;
  }
  return false;
}

}  // namespace bulkhead
