#include "manifest.h"

#include <algorithm>
#include <utility>

#include "protocol/sha256.h"

namespace bulkhead {
namespace {

using Json = nlohmann::json;

constexpr const char* kFormat = "bulkhead-checkpoint";
constexpr std::int64_t kVersion = 1;
// The hash is over the text with this in the hash's own place.
const std::string kNoHash(64, '0');

Json to_json(const FileRecord& record) {
  return {{"name", record.name}, {"size", record.size}, {"sha256", record.sha256}};
}

Json list_of(const std::vector<FileRecord>& records) {
  Json list = Json::array();
  for (const FileRecord& record : records) list.push_back(to_json(record));
  return list;
}

bool is_hash(const Json& value) {
  if (!value.is_string()) return false;
  const auto& text = value.get_ref<const std::string&>();
  return text.size() == kNoHash.size() && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

Result<FileRecord> record_from(const Json& value) {
  if (!value.is_object() || !value.contains("name") || !value["name"].is_string() ||
      !value.contains("size") || !value["size"].is_number_unsigned() || !value.contains("sha256") ||
      !is_hash(value["sha256"])) {
    return Error{ErrorCode::kMalformed, "a file's record lacks a name, size or sha256"};
  }
  FileRecord record{value["name"], value["size"], value["sha256"]};
  if (auto good = check_file_name(record.name); !good) return good.error();
  return record;
}

Result<std::vector<FileRecord>> records_from(const Json& list) {
  if (!list.is_array()) return Error{ErrorCode::kMalformed, "the files are not a list"};
  std::vector<FileRecord> records;
  for (const Json& value : list) {
    auto record = record_from(value);
    if (!record) return record.error();
    records.push_back(*std::move(record));
  }
  return records;
}

Status sort_by_name(std::vector<FileRecord>& records) {
  std::sort(records.begin(), records.end(), [](auto& a, auto& b) { return a.name < b.name; });
  const auto doubled =
      std::adjacent_find(records.begin(), records.end(), [](auto& a, auto& b) { return a.name == b.name; });
  if (doubled == records.end()) return ok_status();
  return Error{ErrorCode::kMalformed, "two files of the checkpoint are named " + doubled->name};
}

// Puts `hash` in the place of `old` behind the key manifest_sha256.
bool replace_hash(std::string& text, const std::string& old, const std::string& hash) {
  const std::string key = "\"manifest_sha256\": \"";
  const std::size_t at = text.rfind(key + old);
  if (at == std::string::npos) return false;
  text.replace(at + key.size(), old.size(), hash);
  return true;
}

Status check_identity(const Json& json, const std::string& file) {
  if (!json.is_object() || json.value("format", Json()) != kFormat) {
    return Error{ErrorCode::kMismatch, file + " is not the manifest of a bulkhead checkpoint"};
  }
  const Json version = json.value("version", Json());
  if (!version.is_number_integer()) return Error{ErrorCode::kMalformed, file + " has no version"};
  if (version.get<std::int64_t>() == kVersion) return ok_status();
  return Error{ErrorCode::kMismatch, file + " has checkpoint format version " + version.dump() +
                                         ", but this bulkhead reads version " + std::to_string(kVersion)};
}

Status check_hash(const Json& json, std::string_view text, const std::string& file) {
  const Json hash = json.value("manifest_sha256", Json());
  std::string copy(text);
  if (!is_hash(hash) || !replace_hash(copy, hash, kNoHash) ||
      to_hex(sha256(copy)) != hash.get<std::string>()) {
    return Error{ErrorCode::kMalformed, file + " is corrupt: its own sha256 does not match"};
  }
  return ok_status();
}

Status read_number(const Json& json, const char* key, std::int64_t smallest, const std::string& file,
                   std::int64_t& number) {
  const Json value = json.value(key, Json());
  if (!value.is_number_integer() || value.get<std::int64_t>() < smallest) {
    return Error{ErrorCode::kMalformed, file + " has no valid " + key};
  }
  number = value.get<std::int64_t>();
  return ok_status();
}

Status read_numbers(const Json& json, const std::string& file, Manifest& manifest) {
  if (auto good = read_number(json, "step", 0, file, manifest.step); !good) return good;
  if (auto good = read_number(json, "epoch", 0, file, manifest.epoch); !good) return good;
  if (auto good = read_number(json, "step_in_epoch", 0, file, manifest.step_in_epoch); !good) return good;
  return read_number(json, "world_size", 1, file, manifest.world_size);
}

}  // namespace

const FileRecord* Manifest::find(std::string_view name) const {
  const auto found =
      std::find_if(files.begin(), files.end(), [&](const FileRecord& record) { return record.name == name; });
  return found == files.end() ? nullptr : &*found;
}

Result<std::string> encode_manifest(Manifest manifest) {
  if (auto good = sort_by_name(manifest.files); !good) return good.error();
  for (const FileRecord& record : manifest.files) {
    if (auto good = check_file_name(record.name); !good) return good.error();
  }
  nlohmann::ordered_json json{{"format", kFormat},
                              {"version", kVersion},
                              {"step", manifest.step},
                              {"epoch", manifest.epoch},
                              {"step_in_epoch", manifest.step_in_epoch},
                              {"world_size", manifest.world_size},
                              {"state", std::move(manifest.state)},
                              {"files", list_of(manifest.files)},
                              {"manifest_sha256", kNoHash}};
  try {
    std::string text = json.dump(2) + "\n";
    CHECK(replace_hash(text, kNoHash, to_hex(sha256(text))));
    return text;
  } catch (const Json::exception& error) {
    return Error{ErrorCode::kMalformed, std::string("the checkpoint's state is not JSON: ") + error.what()};
  }
}

Result<Manifest> decode_manifest(std::string_view text, const std::string& file) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (auto good = check_identity(json, file); !good) return good.error();
  if (auto good = check_hash(json, text, file); !good) return good.error();
  Manifest manifest;
  if (auto good = read_numbers(json, file, manifest); !good) return good.error();
  manifest.state = json.value("state", Json());
  auto records = records_from(json.value("files", Json()));
  if (!records) return Error{records.error().code, file + ": " + records.error().message};
  manifest.files = *std::move(records);
  if (auto good = sort_by_name(manifest.files); !good)
    return Error{good.error().code, file + ": " + good.error().message};
  return manifest;
}

std::string encode_records(const std::vector<FileRecord>& records) { return list_of(records).dump(); }

Result<std::vector<FileRecord>> decode_records(std::string_view text) {
  return records_from(Json::parse(text, nullptr, /*allow_exceptions=*/false));
}

}  // namespace bulkhead
