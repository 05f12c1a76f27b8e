#include "run_checks.h"

#include <filesystem>
#include <unistd.h>

#include "protocol/cpus.h"
#include "run_schema.h"
#include "suggestion.h"

namespace bulkhead {
namespace {

namespace fs = std::filesystem;

Error refuse(const RunFile& run, const std::string& key, const std::string& sentence) {
  return Error{ErrorCode::kMismatch, run.place_of(key) + ": " + sentence};
}

Status check_fit(const RunFile& run) {
  const std::string& model = run.config.model.type;
  const std::string& data = run.config.data.type;
  const std::vector<std::string> fitting = data == "text" || data == "rows"
                                               ? std::vector<std::string>{"gpt", "llama"}
                                           : data == "mnist"    ? std::vector<std::string>{"cnn", "mlp"}
                                           : data == "captions" ? std::vector<std::string>{"clip"}
                                                                : std::vector<std::string>{"mlp"};
  for (const std::string& type : fitting) {
    if (type == model) return ok_status();
  }
  const std::string key = run.places.contains("model.type") ? "model.type" : "data.type";
  return refuse(
      run, key,
      "model.type " + model + " does not fit data.type " + data + ", which needs " + one_of(fitting));
}

Status check_numbers(const RunFile& run) {
  const RunConfig& config = run.config;
  if (config.train.max_steps == 0 && config.train.max_epochs == 0) {
    return refuse(run, "train", "train.max_steps or train.max_epochs must say when training ends");
  }
  const ModelConfig& model = config.model;
  const bool has_heads = model.type == "gpt" || model.type == "llama" || model.type == "clip";
  if (model.from.empty() && has_heads && model.head_dim == 0 && model.width % model.heads != 0) {
    const std::string key = run.places.contains("model.heads") ? "model.heads" : "model.width";
    return refuse(run, key,
                  "model.width " + std::to_string(model.width) + " must be a multiple of model.heads " +
                      std::to_string(model.heads));
  }
  if (model.kv_heads > 0 && model.heads % model.kv_heads != 0) {
    return refuse(run, "model.kv_heads",
                  "model.heads " + std::to_string(model.heads) + " must be a multiple of model.kv_heads " +
                      std::to_string(model.kv_heads));
  }
  if (config.schedule.type != "constant" && config.schedule.min_lr > config.optimizer.lr) {
    return refuse(run, "schedule.min_lr", "schedule.min_lr must be at most optimizer.lr");
  }
  return ok_status();
}

// `path`, given under `key`, can be read and is a file, or a folder with these
// files in it.
Status check_there(const RunFile& run, const std::string& key, const fs::path& path, bool is_folder,
                   const std::vector<std::string>& files) {
  std::error_code error;
  if (!fs::exists(path, error)) return refuse(run, key, key + ": " + missing_path(path));
  if (fs::is_directory(path, error) != is_folder) {
    return refuse(run, key,
                  key + ": " + path.string() + (is_folder ? " is not a folder" : " is a folder, not a file"));
  }
  if (::access(path.c_str(), R_OK) != 0)
    return refuse(run, key, key + ": " + path.string() + " may not be read");
  for (const std::string& file : files) {
    if (!fs::exists(path / file, error)) return refuse(run, key, key + ": " + missing_path(path / file));
  }
  return ok_status();
}

// A folder that says the model's size, and nobody else.
Status check_from(const RunFile& run) {
  if (run.config.model.from.empty()) return ok_status();
  for (const auto& [key, place] : run.places) {
    if (!folder_says(key, run.config)) continue;
    return refuse(run, key, key + " is what the config.json of model.from says; leave it out");
  }
  return check_there(run, "model.from", run.config.model.from, true, {"config.json"});
}

// Data is left for training, and for a test that is asked for.
Status check_parts(const RunFile& run) {
  const RunConfig& config = run.config;
  if (config.data.type == "mnist") return ok_status();
  if (config.data.validation_fraction + config.data.test_fraction >= 1) {
    return refuse(
        run, "data.test_fraction",
        "data.validation_fraction and data.test_fraction must be below 1 together, or nothing is left "
        "to train on");
  }
  if (config.train.test && config.data.test_fraction == 0) {
    return refuse(run, "train.test", "train.test needs test data; say how much with data.test_fraction");
  }
  return ok_status();
}

Status check_data(const RunFile& run) {
  const DataConfig& data = run.config.data;
  std::vector<std::string> files;
  if (data.type == "mnist") {
    files = {"train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz",
             "t10k-labels-idx1-ubyte.gz"};
  }
  const bool is_folder = data.type == "mnist" || data.type == "captions";
  if (auto there = check_there(run, "data.path", data.path, is_folder, files); !there) return there;
  if (data.vocabulary.empty()) return ok_status();
  return check_there(run, "data.vocabulary", data.vocabulary, true, {"encoder.json", "vocab.bpe"});
}

}  // namespace

Status check_run(const RunFile& run) {
  for (const auto& check : {check_fit, check_from, check_numbers, check_parts, check_data}) {
    if (auto checked = check(run); !checked) return checked;
  }
  return ok_status();
}

Status resolve_device(RunFile& run, bool has_cuda) {
  std::string& device = run.config.train.device;
  if (device == "cuda" && !has_cuda) {
    return refuse(run, "train.device",
                  "train.device is cuda, but there is no GPU here or no CUDA in this build; use cpu");
  }
  if (device == "auto") device = has_cuda ? "cuda" : "cpu";
  return ok_status();
}

Status check_device(const RunFile& run, const std::string& key, const PluginConfig& plugin) {
  if (plugin.device == "cpu") return ok_status();
  if (run.config.train.device != "cuda") {
    return refuse(run, key,
                  key + " is cuda, but train.device is " + run.config.train.device +
                      ": there is no GPU of a rank to share; use cpu");
  }
  if (plugin.limits.memory_bytes > 0) {
    return refuse(run, key,
                  key +
                      " is cuda, but limits.memory bounds the address space, of which CUDA takes far more "
                      "than it uses; give no limits.memory");
  }
  if (plugin.scope == "rank") return ok_status();
  return refuse(run, key,
                key + " is cuda, but the scope is " + plugin.scope +
                    ": each rank has a GPU of its own, so the scope must be rank");
}

Status check_affinity(const RunFile& run, const std::string& key, const PluginConfig& plugin) {
  if (plugin.affinity == "auto" || plugin.affinity == "none") return ok_status();
  const Result<Cpus> wanted = cpus_named(plugin.affinity);
  if (!wanted) return refuse(run, key, key + ": " + wanted.error().message + "; or say auto or none");
  const Cpus missing = without(*wanted, allowed_cpus());
  if (missing.empty()) return ok_status();
  return refuse(run, key, key + ": there is no CPU " + std::to_string(missing.front()) + " for us here");
}

Status check_interpreter(const RunFile& run, const std::string& key, const PluginConfig& plugin) {
  const bool given = run.places.contains(key);
  if (plugin.language == "cpp") {
    if (given) return refuse(run, key, key + " does not belong to a native plugin");
    return ok_status();
  }
  std::error_code error;
  if (given && !fs::exists(plugin.python, error))
    return refuse(run, key, key + ": " + missing_path(plugin.python));
  if (::access(plugin.python.c_str(), X_OK) == 0 && !fs::is_directory(plugin.python, error))
    return ok_status();
  if (given) return refuse(run, key, key + ": " + plugin.python + " is not a program");
  return refuse(run, key,
                "the plugin needs a Python and " + plugin.python +
                    " is none: run scripts/setup, or name one as " + key);
}

}  // namespace bulkhead
