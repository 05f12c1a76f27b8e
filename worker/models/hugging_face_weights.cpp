// The safetensors of a folder, and which of them are which parameters.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ATen/core/grad_mode.h>
#include <nlohmann/json.hpp>

#include "data/files.h"
#include "models/hugging_face.h"
#include "safetensors.h"
#include "torch_error.h"

namespace bulkhead::hugging_face {
namespace {

namespace fs = std::filesystem;

constexpr const char* kKey = "model.from";
constexpr const char* kWhole = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

Error refuse(const fs::path& path, const std::string& what) {
  return Error{ErrorCode::kMismatch, std::string(kKey) + ": " + path.string() + ": " + what};
}

// A file's bytes, read as they are looked at.
Result<Blob> map_file(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat status {};
  const bool usable = fd >= 0 && ::fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 0;
  const auto size = static_cast<std::size_t>(usable ? status.st_size : 0);
  void* data = usable ? ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
  const int error = errno;
  if (fd >= 0) ::close(fd);
  if (data == MAP_FAILED) {
    const std::string why = fd < 0 || usable ? std::strerror(error) : "not a file, or empty";
    return Error{ErrorCode::kUnavailable,
                 std::string(kKey) + ": " + path.string() + " cannot be read: " + why};
  }
  Blob blob;
  blob.owner = std::shared_ptr<const void>(data, [data, size](const void*) { ::munmap(data, size); });
  blob.data = static_cast<const std::byte*>(data);
  blob.size = size;
  return blob;
}

// The names of the files that hold the tensors.
Result<std::set<std::string>> files_of(const fs::path& folder) {
  std::error_code ignored;
  if (!fs::exists(folder / kIndex, ignored)) {
    if (fs::exists(folder / kWhole, ignored)) return std::set<std::string>{kWhole};
    return Error{ErrorCode::kUnavailable,
                 std::string(kKey) + ": " + folder.string() + " has neither " + kWhole + " nor " + kIndex};
  }
  const Result<std::string> text = read_file(folder / kIndex, kKey);
  if (!text) return text.error();
  const Value json = Value::parse(*text, nullptr, /*allow_exceptions=*/false);
  const bool usable = json.is_object() && json.contains("weight_map") && json["weight_map"].is_object();
  if (!usable) return refuse(folder / kIndex, "has no mapping weight_map");
  std::set<std::string> names;
  for (const auto& [tensor, file] : json["weight_map"].items()) {
    const bool plain =
        file.is_string() && fs::path(file.get<std::string>()).filename() == file.get<std::string>();
    if (!plain) return refuse(folder / kIndex, "names no file of this folder for \"" + tensor + "\"");
    names.insert(file.get<std::string>());
  }
  return names;
}

struct Found {
  at::Tensor value;
  fs::path file;
};

Result<std::map<std::string, Found>> read_tensors(const fs::path& folder) {
  const Result<std::set<std::string>> files = files_of(folder);
  if (!files) return files.error();
  std::map<std::string, Found> tensors;
  for (const std::string& file : *files) {
    const Result<Blob> bytes = map_file(folder / file);
    if (!bytes) return bytes.error();
    Result<SafeTensors> read = parse_safetensors(*bytes, std::string(kKey) + ": " + (folder / file).string());
    if (!read) return read.error();
    for (const NamedTensor& tensor : read->tensors) {
      const bool fresh = tensors.emplace(tensor.name, Found{tensor.value, folder / file}).second;
      if (!fresh) return refuse(folder / file, "\"" + tensor.name + "\" is in another file too");
    }
  }
  return tensors;
}

bool ends_with_any(const std::string& name, std::initializer_list<const char*> ends) {
  return std::any_of(ends.begin(), ends.end(), [&](const char* end) { return name.ends_with(end); });
}

// What some files hold besides: constants of older versions, and the head where it is the embedding.
bool is_no_parameter(const ModelConfig& config, const std::string& name) {
  if (config.type == "gpt")
    return name == "lm_head.weight" || ends_with_any(name, {".attn.bias", ".attn.masked_bias"});
  return (config.tied && name == "lm_head.weight") || name.ends_with(".rotary_emb.inv_freq");
}

// GPT-2's Conv1D keeps [in, out].
bool is_turned(const ModelConfig& config, const std::string& name) {
  return config.type == "gpt" && ends_with_any(name, {".c_attn.weight", ".c_proj.weight", ".c_fc.weight"});
}

std::string shape_of(at::IntArrayRef sizes) {
  std::string text = "[";
  for (const std::int64_t size : sizes) text += (text.size() > 1 ? "," : "") + std::to_string(size);
  return text + "]";
}

std::string own_name(const ModelConfig& config, const std::string& name) {
  constexpr std::string_view kPrefix = "transformer.";
  return config.type == "gpt" && name.starts_with(kPrefix) ? name.substr(kPrefix.size()) : name;
}

// The tensor as the parameter has it; where it does not fit, why.
Result<at::Tensor> fitting(const ModelConfig& config, const NamedTensor& parameter, const Found& found) {
  const at::ScalarType type = found.value.scalar_type();
  if (type != at::kFloat && type != at::kHalf && type != at::kBFloat16)
    return refuse(found.file, "\"" + parameter.name + "\" is of type " + c10::toString(type) +
                                  "; bulkhead reads F32, F16 and BF16");
  const bool turned = is_turned(config, parameter.name) && found.value.dim() == 2;
  const at::Tensor value = turned ? found.value.t() : found.value;
  if (value.sizes() != parameter.value.sizes())
    return refuse(found.file, "\"" + parameter.name + "\" is " + shape_of(value.sizes()) +
                                  ", but config.json makes it " + shape_of(parameter.value.sizes()));
  return value;
}

}  // namespace

Status load_parameters(const ModelConfig& config, const std::vector<NamedTensor>& parameters) {
  const fs::path folder = config.from;
  Result<std::map<std::string, Found>> read = read_tensors(folder);
  if (!read) return read.error();
  std::map<std::string, Found> tensors;
  for (auto& [name, found] : *read) {
    if (!is_no_parameter(config, name)) tensors.emplace(own_name(config, name), std::move(found));
  }
  std::vector<at::Tensor> values;
  for (const NamedTensor& parameter : parameters) {
    const auto found = tensors.find(parameter.name);
    if (found == tensors.end()) return refuse(folder, "no file holds \"" + parameter.name + "\"");
    Result<at::Tensor> value = fitting(config, parameter, found->second);
    if (!value) return value.error();
    values.push_back(*value);
    tensors.erase(found);
  }
  if (!tensors.empty()) {
    const auto& [name, found] = *tensors.begin();
    return refuse(found.file, "\"" + name + "\" belongs to no part of the model that config.json describes");
  }
  return catching(std::string(kKey) + ": reading " + folder.string(), ErrorCode::kFailed, [&] {
    const at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < values.size(); ++i) parameters[i].value.copy_(values[i]);
  });
}

}  // namespace bulkhead::hugging_face
