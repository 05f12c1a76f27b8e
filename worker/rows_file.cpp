#include "rows_file.h"

#include <cstring>
#include <limits>
#include <memory>
#include <utility>

#include <ATen/ops/empty.h>

#include "batch.h"
#include "protocol/sha256.h"
#include "safetensors.h"

namespace bulkhead {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFormat = "bulkhead rows 1";
constexpr const char* kStatePrefix = "state.";
constexpr const char* kAside = "rows.safetensors.writing";

template <class T>
NamedTensor tensor_of(const std::string& name, at::ScalarType type, const T* data, std::size_t count) {
  at::Tensor tensor = at::empty({static_cast<std::int64_t>(count)}, type);
  if (count > 0) std::memcpy(tensor.mutable_data_ptr(), data, count * sizeof(T));
  return {name, tensor};
}

// Of the content that training depends on.
std::string hash_of(const TokenRows& rows) {
  Sha256 hash;
  const auto add = [&](const auto& values) { hash.update(values.data(), values.size() * sizeof(values[0])); };
  add(rows.input_ids);
  add(rows.labels);
  add(rows.ends);
  add(rows.characters);
  return to_hex(hash.finish());
}

Value head_of(const RowsFile& file) {
  const TokenRows& rows = file.rows;
  Value seqs = Value::object();
  for (const auto& [name, restored] : file.states) seqs[name] = restored.last_seq.value;
  return {{"train", rows.sizes.train},
          {"validation", rows.sizes.validation},
          {"test", rows.sizes.test},
          {"dropped", rows.dropped},
          {"vocabulary", rows.vocabulary},
          {"start_token", rows.start_token},
          {"decoding", rows.decoding},
          {"characters", rows.characters},
          {"data", file.data_key},
          {"plugins", file.plugin_key},
          {"seqs", seqs},
          {"sha256", hash_of(rows)}};
}

void read_head(const Value& head, RowsFile& file) {
  TokenRows& rows = file.rows;
  head.at("train").get_to(rows.sizes.train);
  head.at("validation").get_to(rows.sizes.validation);
  head.at("test").get_to(rows.sizes.test);
  head.at("dropped").get_to(rows.dropped);
  head.at("vocabulary").get_to(rows.vocabulary);
  head.at("start_token").get_to(rows.start_token);
  head.at("decoding").get_to(rows.decoding);
  head.at("characters").get_to(rows.characters);
  head.at("data").get_to(file.data_key);
  head.at("plugins").get_to(file.plugin_key);
  for (const auto& [name, seq] : head.at("seqs").items()) {
    file.states[name].last_seq = Seq(seq.get<std::int64_t>());
  }
}

template <class T>
bool copy_list(const TensorBatch& tensors, const char* name, at::ScalarType type, std::vector<T>& list) {
  const at::Tensor* found = find_tensor(tensors, name);
  if (found == nullptr || found->scalar_type() != type || found->dim() != 1) return false;
  list.resize(static_cast<std::size_t>(found->numel()));
  if (!list.empty()) std::memcpy(list.data(), found->const_data_ptr(), found->nbytes());
  return true;
}

// Every sample lies where it says, and no id or label would read outside a table.
bool fits(const TokenRows& rows) {
  const SplitSizes& sizes = rows.sizes;
  if (rows.input_ids.size() != rows.labels.size()) return false;
  if (sizes.train < 1 || sizes.validation < 0 || sizes.test < 0) return false;
  if (sizes.train + sizes.validation + sizes.test != rows.count()) return false;
  std::int64_t begin = 0;
  for (const std::int64_t end : rows.ends) {
    if (end <= begin || end > static_cast<std::int64_t>(rows.input_ids.size())) return false;
    begin = end;
  }
  if (begin != static_cast<std::int64_t>(rows.input_ids.size())) return false;
  const auto is_id = [&](std::int32_t id) { return id >= 0 && id < rows.vocabulary; };
  for (const std::int32_t id : rows.input_ids) {
    if (!is_id(id)) return false;
  }
  for (const std::int32_t label : rows.labels) {
    if (!is_id(label) && label != kNotLearned) return false;
  }
  return rows.start_token >= 0 && rows.start_token < rows.vocabulary;
}

std::string key_of(const Value& parts) {
  const std::string text = parts.dump();
  return to_hex(sha256(text));
}

}  // namespace

std::string data_key_of(const RunConfig& config) {
  const DataConfig& data = config.data;
  return key_of(Value::array(
      {data.type, data.tokenizer, data.validation_fraction, data.test_fraction, config.model.context}));
}

std::string plugin_key_of(const RunConfig& config, const std::vector<PluginRoute>& routes) {
  std::error_code unknown;  // then the rows cannot be read either
  const auto size = fs::file_size(config.data.path, unknown);
  const auto changed = fs::last_write_time(config.data.path, unknown).time_since_epoch().count();
  Value parts = Value::array({config.train.seed, config.data.path, size, changed});
  for (const PluginRoute& route : routes) {
    for (const char* hook : {"preprocess", "keep", "encode"}) {
      if (!route.traits.has(hook)) continue;
      parts.push_back(Value::array(
          {hook, route.config.name, route.config.with, route.traits.class_name, route.traits.checksum}));
    }
  }
  return key_of(parts);
}

Result<Blob> encode_rows(const RowsFile& file) {
  const TokenRows& rows = file.rows;
  TensorBatch tensors{tensor_of("input_ids", at::kInt, rows.input_ids.data(), rows.input_ids.size()),
                      tensor_of("labels", at::kInt, rows.labels.data(), rows.labels.size()),
                      tensor_of("ends", at::kLong, rows.ends.data(), rows.ends.size())};
  for (const auto& [name, restored] : file.states) {
    if (!restored.state) continue;
    tensors.push_back(tensor_of(kStatePrefix + name, at::kByte, restored.state->data, restored.state->size));
  }
  std::string bytes;
  const Status written = write_safetensors(tensors, {{"format", kFormat}, {"rows", head_of(file).dump()}},
                                           [&](const void* data, std::size_t size) -> Status {
                                             bytes.append(static_cast<const char*>(data), size);
                                             return ok_status();
                                           });
  if (!written) return written.error();
  return Blob::of(std::move(bytes));
}

Result<RowsFile> decode_rows(const Blob& bytes, const std::string& name) {
  const auto damaged = [&](const std::string& what) {
    return Error{ErrorCode::kMalformed, name + " " + what};
  };
  Result<SafeTensors> read = parse_safetensors(bytes, name);
  if (!read) return read.error();
  const auto format = read->metadata.find("format");
  const auto head = read->metadata.find("rows");
  if (format == read->metadata.end() || format->second != kFormat || head == read->metadata.end()) {
    return damaged("is no data set that this bulkhead wrote");
  }
  RowsFile file;
  TokenRows& rows = file.rows;
  try {
    const Value value = Value::parse(head->second);
    read_head(value, file);
    const bool whole = copy_list(read->tensors, "input_ids", at::kInt, rows.input_ids) &&
                       copy_list(read->tensors, "labels", at::kInt, rows.labels) &&
                       copy_list(read->tensors, "ends", at::kLong, rows.ends);
    if (!whole || !fits(rows)) return damaged("holds lists that do not fit together");
    if (value.at("sha256") != hash_of(rows)) return damaged("was altered");
  } catch (const Value::exception& error) {
    return damaged(std::string("has a head that cannot be read: ") + error.what());
  }
  for (auto& [plugin, restored] : file.states) {
    const at::Tensor* state = find_tensor(read->tensors, kStatePrefix + plugin);
    if (state == nullptr) continue;
    restored.state =
        Blob::of(std::string(static_cast<const char*>(state->const_data_ptr()), state->nbytes()));
  }
  return file;
}

Result<LinkedFile> write_rows_file(const fs::path& directory, const Blob& bytes) {
  std::error_code code;
  fs::remove(directory / kAside, code);  // of one that died
  auto file = CheckedWriter::create(directory, kAside);
  if (!file) return file.error();
  if (Status written = file->write(bytes.data, bytes.size); !written) return written.error();
  Result<FileRecord> record = file->finish();
  if (!record) return record.error();
  fs::rename(directory / kAside, directory / kRowsFile, code);
  if (code) {
    return Error{ErrorCode::kFailed,
                 "cannot rename " + (directory / kAside).string() + ": " + code.message()};
  }
  if (Status synced = sync_directory(directory); !synced) return synced.error();
  record->name = kRowsFile;
  return LinkedFile{directory / kRowsFile, std::move(*record)};
}

}  // namespace bulkhead
