// A run as resolved: what the coordinator read from the run file, with every
// default filled in, and what it sends to each worker in StartWorker.
//
// Plain values.  Reading and checking YAML is coordinator/run_file; the
// meaning, unit and default of every key is documented there, in one table.
// visit() is what the codec goes by (codec.h).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace bulkhead {

// A value whose shape only a person's run file or plugin knows.
using Value = nlohmann::json;

struct ModelConfig {
  std::string type = "gpt";  // gpt | llama | mlp | cnn | clip
  std::int64_t layers = 6;   // gpt, llama, clip: blocks (of text); mlp: hidden layers
  std::int64_t heads = 6;    // gpt, llama, clip
  std::int64_t width =
      384;  // gpt, llama, clip: embedding; mlp: hidden units; cnn: channels of the first layer
  std::int64_t context = 256;  // gpt, llama, clip: tokens per sample
  // llama
  std::int64_t kv_heads = 0;             // of keys and values; 0 = heads
  std::int64_t head_dim = 0;             // 0 = width / heads
  std::int64_t mlp_width = 0;            // inner units of SwiGLU; 0 = 8/3 of width, up to a multiple of 64
  double rope_theta = 10000.0;           // base of the rotary frequencies
  Value rope_scaling = Value::object();  // {} or Hugging Face's rope_scaling of type llama3 or linear
  double norm_eps = 1.0e-5;
  bool tied = false;                      // the head is the token embedding
  bool qkv_bias = false;                  // as Qwen2
  std::string from{};                     // gpt, llama: folder of config.json and safetensors, absolute
  bool activation_checkpointing = false;  // gpt, llama, clip: blocks are recomputed in backward

  static void visit(auto& self, auto&& field) {
    field("type", self.type);
    field("layers", self.layers);
    field("heads", self.heads);
    field("width", self.width);
    field("context", self.context);
    field("kv_heads", self.kv_heads);
    field("head_dim", self.head_dim);
    field("mlp_width", self.mlp_width);
    field("rope_theta", self.rope_theta);
    field("rope_scaling", self.rope_scaling);
    field("norm_eps", self.norm_eps);
    field("tied", self.tied);
    field("qkv_bias", self.qkv_bias);
    field("from", self.from);
    field("activation_checkpointing", self.activation_checkpointing);
  }
};

struct DataConfig {
  std::string type = "text";       // text | mnist | csv | captions | rows
  std::string path;                // absolute
  std::string tokenizer = "char";  // text, captions, rows: char | gpt2
  std::string vocabulary;          // with gpt2: folder of encoder.json and vocab.bpe, absolute
  std::string target;              // csv: name of the label column
  std::int64_t image_size = 64;    // captions: pixels of the square that each image is scaled and cropped to
  // The last part of the samples, before the test part.  Negative: not given, mnist only, which then
  // validates on its t10k files; given, it is the last part of its training files.
  double validation_fraction = 0.1;
  double test_fraction = 0;      // the last part of the samples; mnist: its t10k files
  std::int64_t batch_size = 16;  // samples per rank and micro-batch

  static void visit(auto& self, auto&& field) {
    field("type", self.type);
    field("path", self.path);
    field("tokenizer", self.tokenizer);
    field("vocabulary", self.vocabulary);
    field("target", self.target);
    field("image_size", self.image_size);
    field("validation_fraction", self.validation_fraction);
    field("test_fraction", self.test_fraction);
    field("batch_size", self.batch_size);
  }
};

struct OptimizerConfig {
  std::string type = "adamw";  // adamw | sgd
  double lr = 3.0e-4;
  double weight_decay = 0.1;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1.0e-8;
  double momentum = 0.9;   // sgd
  double grad_clip = 1.0;  // largest total gradient norm; 0 = no clipping
  bool sharded = false;    // adamw: each rank keeps the moments of its share of the parameters

  static void visit(auto& self, auto&& field) {
    field("type", self.type);
    field("lr", self.lr);
    field("weight_decay", self.weight_decay);
    field("beta1", self.beta1);
    field("beta2", self.beta2);
    field("eps", self.eps);
    field("momentum", self.momentum);
    field("grad_clip", self.grad_clip);
    field("sharded", self.sharded);
  }
};

struct ScheduleConfig {
  std::string type = "constant";  // constant | linear | cosine
  std::int64_t warmup_steps = 0;
  double min_lr = 0.0;  // linear, cosine: the value at the last step

  static void visit(auto& self, auto&& field) {
    field("type", self.type);
    field("warmup_steps", self.warmup_steps);
    field("min_lr", self.min_lr);
  }
};

struct TrainConfig {
  std::int64_t max_steps = 0;      // optimizer steps; 0 = by epochs alone
  std::int64_t max_epochs = 0;     // 0 = by steps alone; one of the two is > 0
  std::string precision = "fp32";  // fp32 | bf16 | fp16
  std::int64_t accumulate = 1;     // micro-batches per optimizer step
  std::int64_t seed = 1;
  std::int64_t validate_every = 0;    // steps; 0 = at each epoch's end
  std::int64_t validate_batches = 0;  // batches per rank in one validation; 0 = all
  std::int64_t log_every = 10;
  bool test = false;               // a test after training: needs test data
  std::int64_t sample_tokens = 0;  // gpt, llama: tokens of text written by the model at train end
  bool deterministic = true;
  std::string device = "cpu";  // cpu | cuda

  static void visit(auto& self, auto&& field) {
    field("max_steps", self.max_steps);
    field("max_epochs", self.max_epochs);
    field("precision", self.precision);
    field("accumulate", self.accumulate);
    field("seed", self.seed);
    field("validate_every", self.validate_every);
    field("validate_batches", self.validate_batches);
    field("log_every", self.log_every);
    field("test", self.test);
    field("sample_tokens", self.sample_tokens);
    field("deterministic", self.deterministic);
    field("device", self.device);
  }
};

struct CheckpointConfig {
  std::int64_t every = 0;  // steps; 0 = only at train end
  std::int64_t keep = 3;   // newest checkpoints kept; 0 = all

  static void visit(auto& self, auto&& field) {
    field("every", self.every);
    field("keep", self.keep);
  }
};

struct FailureConfig {
  std::int64_t restarts = 3;     // host restarts allowed …
  double within_seconds = 300;   // … in any window of this length
  std::string then = "disable";  // disable | abort

  static void visit(auto& self, auto&& field) {
    field("restarts", self.restarts);
    field("within_seconds", self.within_seconds);
    field("then", self.then);
  }
};

struct LimitsConfig {
  std::int64_t memory_bytes = 0;  // address space; 0 = no limit
  std::int64_t cpu = 0;           // cores; 0 = no limit
  std::int64_t open_files = 0;    // 0 = inherited

  static void visit(auto& self, auto&& field) {
    field("memory_bytes", self.memory_bytes);
    field("cpu", self.cpu);
    field("open_files", self.open_files);
  }
};

struct PluginConfig {
  std::string use;               // as written
  std::string name;              // unique
  Value with = Value::object();  // constructor arguments
  std::string scope = "rank";    // rank | node | job
  std::int64_t prefetch = 2;     // steps that train transforms run ahead
  double deadline_seconds = 30;  // one step, transform or compute call
  bool deadline_given = false;   // then it also bounds epoch, validation, save and train hooks
  FailureConfig on_failure;
  std::string on_poison = "identity";  // identity | skip | abort
  bool check_finite = false;           // scan outputs for NaN and Inf
  LimitsConfig limits;
  std::string affinity = "auto";   // auto | none | CPUs, as cpus_named() reads them
  std::string transport = "auto";  // auto | socket: never a ring, nor shared memory
  std::int64_t spin_us = 0;        // EventLoop::spin_for(), of the host and its ranks
  bool standby = true;             // its next process is started while it serves
  std::string device = "cpu";      // cpu | cuda: where its transforms see their batches
  std::string python;              // interpreter, absolute; empty for a native plugin
  // How `use` was resolved.
  std::string language;    // python | cpp
  std::string file;        // .py file, package folder or .so, absolute; empty for a module
  std::string module;      // pkg.mod, for the module form
  std::string class_name;  // empty: the only Plugin subclass in the file

  static void visit(auto& self, auto&& field) {
    field("use", self.use);
    field("name", self.name);
    field("with", self.with);
    field("scope", self.scope);
    field("prefetch", self.prefetch);
    field("deadline_seconds", self.deadline_seconds);
    field("deadline_given", self.deadline_given);
    field("on_failure", self.on_failure);
    field("on_poison", self.on_poison);
    field("check_finite", self.check_finite);
    field("limits", self.limits);
    field("affinity", self.affinity);
    field("transport", self.transport);
    field("spin_us", self.spin_us);
    field("standby", self.standby);
    field("device", self.device);
    field("python", self.python);
    field("language", self.language);
    field("file", self.file);
    field("module", self.module);
    field("class_name", self.class_name);
  }
};

struct RunConfig {
  std::string name;
  ModelConfig model;
  DataConfig data;
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  TrainConfig train;
  CheckpointConfig checkpoint;
  std::vector<PluginConfig> plugins;

  static void visit(auto& self, auto&& field) {
    field("name", self.name);
    field("model", self.model);
    field("data", self.data);
    field("optimizer", self.optimizer);
    field("schedule", self.schedule);
    field("train", self.train);
    field("checkpoint", self.checkpoint);
    field("plugins", self.plugins);
  }
};

}  // namespace bulkhead
