// Folders in Hugging Face's format, made by transformers (tests/data/hugging_face):
// the same logits, and the sentences for what does not fit.
#include "models/hugging_face.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <torch/nn/module.h>

#include "data/files.h"
#include "models/gpt.h"
#include "models/llama.h"
#include "models/model.h"
#include "safetensors.h"
#include "support/temporary_directory.h"

namespace bulkhead {
namespace {

namespace fs = std::filesystem;

const bool kOneThread = (at::set_num_threads(1), true);

ModelConfig config_of(const std::string& name, const fs::path& folder) {
  ModelConfig config;
  config.type = name == "gpt2" ? "gpt" : "llama";
  config.context = 24;
  config.from = folder;
  return config;
}

DatasetFacts text(std::int64_t vocabulary = 65) {
  DatasetFacts facts;
  facts.vocabulary = vocabulary;
  return facts;
}

std::vector<NamedTensor> read(const fs::path& path) {
  const auto bytes = read_file(path, "test");
  CHECK(bytes.ok(), bytes.error().message);
  auto tensors = parse_safetensors(Blob::of(*bytes), path);
  CHECK(tensors.ok(), tensors.error().message);
  return std::move(tensors->tensors);
}

at::Tensor logits_of(const Model& model, const at::Tensor& ids) {
  const at::NoGradGuard no_grad;
  if (const auto* llama = dynamic_cast<const Llama*>(model.module.get())) return llama->logits(ids);
  return dynamic_cast<const Gpt&>(*model.module).logits(ids);
}

// One of the models, of which a test may change files.
class HuggingFace : public ::testing::TestWithParam<std::string> {
 protected:
  fs::path original() const { return fs::path(BULKHEAD_TEST_DATA) / "hugging_face" / GetParam(); }
  fs::path copied() {
    fs::copy(original(), folder_.path() / GetParam(), fs::copy_options::overwrite_existing);
    return folder_.path() / GetParam();
  }
  TemporaryDirectory folder_;
};

TEST_P(HuggingFace, LogitsAreThoseOfTransformers) {
  const auto golden = read(original() / "logits.safetensors");
  const at::Tensor& ids = tensor_named(golden, "input_ids");
  const at::Tensor& wanted = tensor_named(golden, "logits");
  struct Case {
    at::ScalarType type;
    double most;  // of the largest difference, in standard deviations of the logits
  };
  for (const Case& each : {Case{at::kFloat, 2e-5}, Case{at::kBFloat16, 6e-2}, Case{at::kHalf, 8e-3}}) {
    const auto model = make_model(config_of(GetParam(), original()), text(), 1, each.type);
    ASSERT_TRUE(model.ok()) << model.error().message;
    const at::Tensor found = logits_of(*model, ids).to(at::kFloat);
    const double off = ((found - wanted).abs().max() / wanted.std()).item<double>();
    EXPECT_LT(off, each.most) << c10::toString(each.type);
    EXPECT_GT(wanted.std().item<double>(), 0.1);
  }
}

TEST_P(HuggingFace, NamesAreThoseOfTheFiles) {
  if (GetParam() == "gpt2") GTEST_SKIP() << "gpt keeps nanoGPT's";
  std::vector<std::string> in_files;
  for (const auto& entry : fs::directory_iterator(original())) {
    if (entry.path().extension() != ".safetensors" || entry.path().stem() == "logits") continue;
    for (const NamedTensor& tensor : read(entry.path())) in_files.push_back(tensor.name);
  }
  std::vector<std::string> ours;
  for (const NamedTensor& parameter :
       named_parameters(*make_model(config_of(GetParam(), original()), text(), 1, at::kFloat)))
    ours.push_back(parameter.name);
  std::sort(in_files.begin(), in_files.end());
  std::sort(ours.begin(), ours.end());
  EXPECT_EQ(ours, in_files);
}

INSTANTIATE_TEST_SUITE_P(Models, HuggingFace, ::testing::Values("llama", "qwen2", "gpt2"),
                         [](const auto& each) { return each.param; });

// ----- What does not fit -----

class BadHuggingFace : public ::testing::Test {
 protected:
  BadHuggingFace() { fs::copy(fs::path(BULKHEAD_TEST_DATA) / "hugging_face" / "qwen2", folder()); }
  fs::path folder() const { return temporary_.path() / "qwen2"; }

  // `change` on config.json, then what is said.
  template <class Change>
  std::string with_config(Change change) {
    Value json = Value::parse(*read_file(folder() / "config.json", "test"));
    const Value before = json;
    change(json);
    write(json);
    const std::string said = refusal();
    write(before);
    return said;
  }
  template <class Change>
  std::string with_tensors(Change change) {
    auto tensors = read(folder() / "model.safetensors");
    std::vector<NamedTensor> changed = tensors;
    change(changed);
    write(changed);
    const std::string said = refusal();
    write(tensors);
    return said;
  }
  std::string refusal(const std::string& type = "llama", std::int64_t vocabulary = 65) const {
    ModelConfig config = config_of("qwen2", folder());
    config.type = type;
    const auto model = make_model(config, text(vocabulary), 1, at::kFloat);
    return model ? "" : without_folder(model.error().message);
  }

 private:
  void write(const Value& json) const { std::ofstream(folder() / "config.json") << json.dump(); }
  void write(const std::vector<NamedTensor>& tensors) const {
    std::vector<NamedTensor> copies;
    for (const NamedTensor& tensor : tensors) copies.push_back({tensor.name, tensor.value.clone()});
    std::ofstream file(folder() / "model.safetensors", std::ios::binary);
    CHECK(write_safetensors(copies, {}, [&](const void* data, std::size_t size) -> Status {
            file.write(static_cast<const char*>(data), static_cast<std::streamsize>(size));
            return ok_status();
          }).ok());
  }
  std::string without_folder(std::string text) const {
    const std::string prefix = temporary_.path().string() + "/";
    for (std::size_t at = text.find(prefix); at != std::string::npos; at = text.find(prefix))
      text.erase(at, prefix.size());
    return text;
  }
  TemporaryDirectory temporary_;
};

TEST_F(BadHuggingFace, ConfigIsRefusedInASentence) {
  const std::string file = "model.from: qwen2/config.json: ";
  EXPECT_EQ(with_config([](Value& json) { json["model_type"] = "mixtral"; }),
            file + "model_type is \"mixtral\"; bulkhead reads gpt2, llama and qwen2");
  EXPECT_EQ(with_config([](Value& json) { json.erase("hidden_size"); }), file + "lacks hidden_size");
  EXPECT_EQ(with_config([](Value& json) { json["hidden_size"] = "16"; }),
            file + "hidden_size must be an integer of at least 1, not \"16\"");
  EXPECT_EQ(with_config([](Value& json) { json["hidden_act"] = "gelu"; }),
            file + "hidden_act is \"gelu\"; bulkhead computes \"silu\" only");
  EXPECT_EQ(with_config([](Value& json) { json["use_sliding_window"] = true; }),
            file + "use_sliding_window is true; bulkhead computes false only");
  EXPECT_EQ(with_config([](Value& json) { json["num_key_value_heads"] = 3; }),
            file + "num_attention_heads is no multiple of num_key_value_heads");
  EXPECT_EQ(with_config([](Value& json) {
              json["rope_scaling"] = {{"type", "dynamic"}, {"factor", 2}};
            }),
            file + "rope_scaling.rope_type: \"dynamic\" is none of default, linear, llama3");
  EXPECT_EQ(with_config([](Value& json) { json["max_position_embeddings"] = 16; }),
            "model.context: 24 is more than the 16 positions of qwen2");
  EXPECT_EQ(refusal("gpt"), file + "model_type is \"qwen2\", which model.type llama reads, not gpt");
  EXPECT_EQ(refusal("llama", 73), "model.from: qwen2 has 72 token ids, the data has 73");
  std::ofstream(folder() / "config.json") << "[1]";
  EXPECT_EQ(refusal(), "model.from: qwen2/config.json: not a JSON object");
}

TEST_F(BadHuggingFace, TensorsAreRefusedInASentence) {
  const std::string file = "model.from: qwen2/model.safetensors: ";
  const auto named = [](std::vector<NamedTensor>& tensors, const std::string& name) -> NamedTensor& {
    return *std::find_if(tensors.begin(), tensors.end(), [&](auto& tensor) { return tensor.name == name; });
  };
  EXPECT_EQ(refusal(), "");
  EXPECT_EQ(with_tensors([&](auto& tensors) { named(tensors, "model.norm.weight").value = at::zeros({8}); }),
            file + "\"model.norm.weight\" is [8], but config.json makes it [16]");
  EXPECT_EQ(with_tensors([&](auto& tensors) {
              named(tensors, "model.norm.weight").value = at::zeros({16}, at::kDouble);
            }),
            file + "\"model.norm.weight\" is of type Double; bulkhead reads F32, F16 and BF16");
  EXPECT_EQ(
      with_tensors([&](auto& tensors) { named(tensors, "model.norm.weight").name = "model.norm.wieght"; }),
      "model.from: qwen2: no file holds \"model.norm.weight\"");
  EXPECT_EQ(
      with_tensors([](auto& tensors) {
        tensors.push_back({"model.layers.2.mlp.up_proj.weight", at::zeros({24, 16})});
      }),
      file +
          "\"model.layers.2.mlp.up_proj.weight\" belongs to no part of the model that config.json describes");
  EXPECT_EQ(with_tensors([](auto& tensors) {  // of a tied model, and of older files
              tensors.push_back({"lm_head.weight", at::zeros({72, 16})});
              tensors.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", at::zeros({2})});
            }),
            "");
  fs::resize_file(folder() / "model.safetensors", 4000);
  EXPECT_NE(refusal().find(file), std::string::npos) << refusal();
  fs::remove(folder() / "model.safetensors");
  EXPECT_EQ(refusal(), "model.from: qwen2 has neither model.safetensors nor model.safetensors.index.json");
  std::ofstream(folder() / "model.safetensors.index.json")
      << R"({"weight_map": {"a": "../other.safetensors"}})";
  EXPECT_EQ(refusal(),
            "model.from: qwen2/model.safetensors.index.json: names no file of this folder for \"a\"");
  std::ofstream(folder() / "model.safetensors.index.json") << R"({"weight_map": {"a": "gone.safetensors"}})";
  EXPECT_EQ(refusal(), "model.from: qwen2/gone.safetensors cannot be read: No such file or directory");
}

}  // namespace
}  // namespace bulkhead
