// config.json: what bulkhead reads of it, and what it refuses.
#include <filesystem>

#include <nlohmann/json.hpp>

#include "data/files.h"
#include "models/hugging_face.h"

namespace bulkhead::hugging_face {
namespace {

constexpr const char* kKey = "model.from";

// config.json, whose first mistake is kept.
class ConfigFile {
 public:
  ConfigFile(Value json, std::string path) : json_(std::move(json)), path_(std::move(path)) {}

  bool has(const char* key) const { return json_.contains(key) && !json_.at(key).is_null(); }
  const Value& at(const char* key) const { return json_.at(key); }

  std::int64_t whole(const char* key) {
    constexpr std::int64_t kMost = std::int64_t{1} << 32;
    if (!has(key)) return refuse(std::string("lacks ") + key), 0;
    const Value& value = at(key);
    if (value.is_number_integer() && value.get<double>() >= 1 && value.get<double>() <= kMost)
      return value.get<std::int64_t>();
    refuse(std::string(key) + " must be an integer of at least 1, not " + value.dump());
    return 0;
  }

  double number(const char* key, double otherwise) {
    if (!has(key)) return otherwise;
    if (at(key).is_number() && at(key).get<double>() > 0) return at(key).get<double>();
    refuse(std::string(key) + " must be a number greater than 0, not " + at(key).dump());
    return otherwise;
  }

  bool truth(const char* key, bool otherwise) {
    if (!has(key)) return otherwise;
    if (at(key).is_boolean()) return at(key).get<bool>();
    refuse(std::string(key) + " must be true or false, not " + at(key).dump());
    return otherwise;
  }

  // What bulkhead computes in one way only; absent is that way.
  void expect(const char* key, const Value& wanted) {
    if (has(key) && at(key) != wanted)
      refuse(std::string(key) + " is " + at(key).dump() + "; bulkhead computes " + wanted.dump() + " only");
  }

  void refuse(const std::string& what) {
    if (ok_) ok_ = Error{ErrorCode::kMismatch, std::string(kKey) + ": " + path_ + ": " + what};
  }
  const Status& status() const { return ok_; }

 private:
  Value json_;
  std::string path_;
  Status ok_ = ok_status();
};

void read_gpt2(ConfigFile& file, Outline& outline) {
  ModelConfig& config = outline.config;
  config.layers = file.whole("n_layer");
  config.heads = file.whole("n_head");
  config.width = file.whole("n_embd");
  outline.positions = file.whole("n_positions");
  if (file.has("n_inner") && file.whole("n_inner") != 4 * config.width)
    file.refuse("n_inner is " + file.at("n_inner").dump() + "; bulkhead computes four times n_embd only");
  file.expect("activation_function", "gelu_new");
  file.expect("layer_norm_epsilon", 1e-5);
  file.expect("scale_attn_weights", true);
  file.expect("scale_attn_by_inverse_layer_idx", false);
  file.expect("tie_word_embeddings", true);
}

// transformers ≥ 5 has rope_parameters; before, rope_theta and rope_scaling.
void read_rope(ConfigFile& file, ModelConfig& config) {
  config.rope_theta = file.number("rope_theta", config.rope_theta);
  const char* key = file.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  if (!file.has(key)) return;
  if (!file.at(key).is_object()) return file.refuse(std::string(key) + " must be a mapping");
  config.rope_scaling = file.at(key);
  if (const auto theta = config.rope_scaling.find("rope_theta"); theta != config.rope_scaling.end()) {
    if (!theta->is_number()) return file.refuse(std::string(key) + ".rope_theta must be a number");
    config.rope_theta = theta->get<double>();
  }
}

void read_llama(ConfigFile& file, const std::string& architecture, Outline& outline) {
  ModelConfig& config = outline.config;
  config.layers = file.whole("num_hidden_layers");
  config.heads = file.whole("num_attention_heads");
  config.width = file.whole("hidden_size");
  config.mlp_width = file.whole("intermediate_size");
  config.kv_heads = file.has("num_key_value_heads") ? file.whole("num_key_value_heads") : 0;
  config.head_dim = file.has("head_dim") ? file.whole("head_dim") : 0;
  config.norm_eps = file.number("rms_norm_eps", 1e-6);
  config.tied = file.truth("tie_word_embeddings", false);
  config.qkv_bias = architecture == "qwen2";
  outline.positions = file.whole("max_position_embeddings");
  read_rope(file, config);
  file.expect("hidden_act", "silu");
  file.expect("attention_bias", false);
  file.expect("mlp_bias", false);
  file.expect("use_sliding_window", false);
}

Status check_heads(ConfigFile& file, const ModelConfig& config) {
  if (file.status() && config.head_dim == 0 && config.width % config.heads != 0)
    file.refuse("its width is no multiple of its heads");
  if (file.status() && config.kv_heads > 0 && config.heads % config.kv_heads != 0)
    file.refuse("num_attention_heads is no multiple of num_key_value_heads");
  return file.status();
}

Result<Outline> read(ConfigFile file, const ModelConfig& asked) {
  Outline outline{asked, 0, 0};
  const std::string architecture = file.has("model_type") ? file.at("model_type").dump() : "nothing";
  const bool is_gpt2 = architecture == "\"gpt2\"";
  const bool is_llama = architecture == "\"llama\"" || architecture == "\"qwen2\"";
  if (!is_gpt2 && !is_llama) {
    file.refuse("model_type is " + architecture + "; bulkhead reads gpt2, llama and qwen2");
  } else if (is_gpt2 != (asked.type == "gpt")) {
    file.refuse("model_type is " + architecture + ", which model.type " + (is_gpt2 ? "gpt" : "llama") +
                " reads, not " + asked.type);
  } else {
    is_gpt2 ? read_gpt2(file, outline)
            : read_llama(file, architecture.substr(1, architecture.size() - 2), outline);
    outline.vocabulary = file.whole("vocab_size");
  }
  if (Status good = check_heads(file, outline.config); !good) return good.error();
  if (asked.context > outline.positions) {
    return Error{ErrorCode::kMismatch, "model.context: " + std::to_string(asked.context) +
                                           " is more than the " + std::to_string(outline.positions) +
                                           " positions of " + asked.from};
  }
  return outline;
}

}  // namespace

Result<Outline> read_outline(const ModelConfig& asked) {
  const std::filesystem::path path = std::filesystem::path(asked.from) / "config.json";
  const Result<std::string> text = read_file(path, kKey);
  if (!text) return text.error();
  Value json = Value::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return Error{ErrorCode::kMalformed, std::string(kKey) + ": " + path.string() + ": not a JSON object"};
  }
  return read(ConfigFile(std::move(json), path.string()), asked);
}

}  // namespace bulkhead::hugging_face
