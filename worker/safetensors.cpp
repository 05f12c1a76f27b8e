#include "safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>
#include <set>
#include <utility>

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <nlohmann/json.hpp>

#include "torch_error.h"

namespace bulkhead {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors are little endian");

using Json = nlohmann::json;

constexpr std::uint64_t kLengthBytes = 8;
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // the reference's limit
constexpr std::size_t kAlignment = 8;
constexpr const char* kMetadataKey = "__metadata__";

struct TypeName {
  at::ScalarType type;
  const char* name;
};
constexpr std::array<TypeName, 10> kTypes{{{at::kBool, "BOOL"},
                                           {at::kByte, "U8"},
                                           {at::kChar, "I8"},
                                           {at::kShort, "I16"},
                                           {at::kInt, "I32"},
                                           {at::kLong, "I64"},
                                           {at::kHalf, "F16"},
                                           {at::kBFloat16, "BF16"},
                                           {at::kFloat, "F32"},
                                           {at::kDouble, "F64"}}};

const char* name_of(at::ScalarType type) {
  const auto* found =
      std::find_if(kTypes.begin(), kTypes.end(), [&](auto& known) { return known.type == type; });
  return found == kTypes.end() ? nullptr : found->name;
}

std::optional<at::ScalarType> type_named(const std::string& name) {
  const auto* found =
      std::find_if(kTypes.begin(), kTypes.end(), [&](auto& known) { return known.name == name; });
  if (found == kTypes.end()) return std::nullopt;
  return found->type;
}

// ----- Writing -----

Status check_writable(const std::vector<NamedTensor>& tensors) {
  std::set<std::string> names;
  for (const NamedTensor& tensor : tensors) {
    const bool fresh = names.insert(tensor.name).second;
    if (!fresh || tensor.name == kMetadataKey) {
      return Error{ErrorCode::kMalformed, "two tensors are named " + tensor.name};
    }
    if (name_of(tensor.value.scalar_type()) == nullptr) {
      return Error{ErrorCode::kMalformed, "tensor " + tensor.name +
                                              " has a type that safetensors cannot hold: " +
                                              c10::toString(tensor.value.scalar_type())};
    }
  }
  return ok_status();
}

std::vector<NamedTensor> in_file_order(std::vector<NamedTensor> tensors) {
  std::sort(tensors.begin(), tensors.end(), [](const NamedTensor& a, const NamedTensor& b) {
    if (a.value.element_size() != b.value.element_size())
      return a.value.element_size() > b.value.element_size();
    return a.name < b.name;
  });
  return tensors;
}

std::string header_of(const std::vector<NamedTensor>& tensors, const TextMap& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header[kMetadataKey] = metadata;
  std::uint64_t offset = 0;
  for (const NamedTensor& tensor : tensors) {
    const std::uint64_t end = offset + tensor.value.nbytes();
    header[tensor.name] = {{"dtype", name_of(tensor.value.scalar_type())},
                           {"shape", tensor.value.sizes().vec()},
                           {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + kAlignment - 1) / kAlignment * kAlignment, ' ');
  return text;
}

// ----- Reading -----

struct Entry {
  std::string name;
  at::ScalarType type = at::kFloat;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

// One sentence about a file, and about one tensor in it where `tensor` is given.
Error malformed(const std::string& file, const std::string& what) {
  return Error{ErrorCode::kMalformed, file + ": " + what};
}
Error malformed(const std::string& file, const std::string& tensor, const std::string& what) {
  return malformed(file, "tensor '" + tensor + "' " + what);
}

// A natural number that fits, from JSON.
std::optional<std::uint64_t> natural(const Json& value) {
  constexpr std::uint64_t kLargest = std::uint64_t{1} << 62;
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() > kLargest) return std::nullopt;
  return value.get<std::uint64_t>();
}

// The bytes that a tensor of that type and shape takes.
std::optional<std::uint64_t> bytes_of(const Entry& entry) {
  std::uint64_t bytes = c10::elementSize(entry.type);
  for (const std::int64_t extent : entry.shape) {
    if (__builtin_mul_overflow(bytes, static_cast<std::uint64_t>(extent), &bytes)) return std::nullopt;
  }
  return bytes;
}

Result<Entry> read_entry(const std::string& file, const std::string& name, const Json& value) {
  Entry entry;
  entry.name = name;
  if (!value.is_object() || !value.contains("dtype") || !value.contains("shape") ||
      !value.contains("data_offsets")) {
    return malformed(file, name, "lacks dtype, shape or data_offsets");
  }
  const Json& dtype = value["dtype"];
  const auto type = dtype.is_string() ? type_named(dtype.get<std::string>()) : std::nullopt;
  if (!type) return malformed(file, name, "has a dtype that bulkhead does not read: " + dtype.dump());
  entry.type = *type;

  if (!value["shape"].is_array()) return malformed(file, name, "has a shape that is not a list");
  for (const Json& extent : value["shape"]) {
    const auto number = natural(extent);
    if (!number) return malformed(file, name, "has a bad shape");
    entry.shape.push_back(static_cast<std::int64_t>(*number));
  }
  const Json& offsets = value["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2 || !natural(offsets[0]) || !natural(offsets[1])) {
    return malformed(file, name, "has bad data_offsets");
  }
  entry.begin = *natural(offsets[0]);
  entry.end = *natural(offsets[1]);
  const auto bytes = bytes_of(entry);
  if (!bytes || entry.end < entry.begin || entry.end - entry.begin != *bytes) {
    return malformed(file, name, "has data_offsets that do not fit its shape");
  }
  return entry;
}

// The tensors must cover the data exactly: nothing shared, nothing hidden.
Status check_cover(const std::string& file, const std::vector<Entry>& entries, std::uint64_t data_bytes) {
  std::uint64_t covered = 0;
  for (const Entry& entry : entries) {
    if (entry.begin < covered) return malformed(file, entry.name, "overlaps another one");
    if (entry.begin > covered) return malformed(file, entry.name, "has a gap before it");
    if (entry.end > data_bytes) return malformed(file, entry.name, "ends past the end of the file");
    covered = entry.end;
  }
  if (covered != data_bytes) return malformed(file, "has data that belongs to no tensor");
  return ok_status();
}

Result<Json> read_header(const Blob& bytes, const std::string& file, std::uint64_t* data_begin) {
  if (bytes.size < kLengthBytes) return malformed(file, "is too short for a safetensors file");
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data, kLengthBytes);
  if (length > kMaxHeaderBytes) return malformed(file, "has a header of more than 100 MB");
  if (length > bytes.size - kLengthBytes) return malformed(file, "is truncated inside its header");
  const std::string_view text = bytes.text().substr(kLengthBytes, length);
  Json header = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!header.is_object()) return malformed(file, "has a header that is not a JSON object");
  *data_begin = kLengthBytes + length;
  return header;
}

Result<TextMap> read_metadata(const std::string& file, const Json& value) {
  TextMap metadata;
  if (!value.is_object()) return malformed(file, "has __metadata__ that is not an object");
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string()) return malformed(file, "has __metadata__ that is not text: " + key);
    metadata[key] = text.get<std::string>();
  }
  return metadata;
}

Result<NamedTensor> make_tensor(const std::string& file, const Entry& entry, const Blob& bytes,
                                const std::byte* data) {
  const std::uint64_t size = entry.end - entry.begin;
  if (entry.type == at::kBool &&
      std::any_of(data, data + size, [](std::byte byte) { return byte > std::byte{1}; })) {
    return malformed(file, entry.name, "is of type BOOL but holds something else than 0 and 1");
  }
  const auto alignment = static_cast<std::uintptr_t>(c10::elementSize(entry.type));
  if (size == 0 || reinterpret_cast<std::uintptr_t>(data) % alignment != 0) {
    at::Tensor copy = at::empty(entry.shape, entry.type);
    std::memcpy(copy.mutable_data_ptr(), data, size);
    return NamedTensor{entry.name, copy};
  }
  // Nobody writes: from_blob only lacks a const form.
  void* shared = const_cast<std::byte*>(data);
  return NamedTensor{entry.name,
                     at::from_blob(
                         shared, entry.shape, [owner = bytes.owner](void*) {}, at::dtype(entry.type))};
}

}  // namespace

Status write_safetensors(const std::vector<NamedTensor>& tensors, const TextMap& metadata,
                         const ByteSink& sink) {
  if (auto good = check_writable(tensors); !good) return good;
  return catching("writing tensors", ErrorCode::kFailed, [&]() -> Status {
    const std::vector<NamedTensor> ordered = in_file_order(tensors);
    const std::string header = header_of(ordered, metadata);
    const std::uint64_t length = header.size();
    if (length > kMaxHeaderBytes) return Error{ErrorCode::kMalformed, "too many tensors for one file"};
    if (auto done = sink(&length, sizeof length); !done) return done;
    if (auto done = sink(header.data(), header.size()); !done) return done;
    for (const NamedTensor& tensor : ordered) {
      const at::Tensor dense = tensor.value.detach().to(at::kCPU).contiguous();
      if (auto done = sink(dense.const_data_ptr(), dense.nbytes()); !done) return done;
    }
    return ok_status();
  });
}

Result<SafeTensors> parse_safetensors(const Blob& bytes, const std::string& file) {
  return catching("reading " + file, ErrorCode::kMalformed, [&]() -> Result<SafeTensors> {
    std::uint64_t data_begin = 0;
    const auto header = read_header(bytes, file, &data_begin);
    if (!header) return header.error();

    SafeTensors read;
    std::vector<Entry> entries;
    for (const auto& [name, value] : header->items()) {
      if (name == kMetadataKey) {
        auto metadata = read_metadata(file, value);
        if (!metadata) return metadata.error();
        read.metadata = *std::move(metadata);
        continue;
      }
      auto entry = read_entry(file, name, value);
      if (!entry) return entry.error();
      entries.push_back(*std::move(entry));
    }
    std::sort(entries.begin(), entries.end(),
              [](auto& a, auto& b) { return std::tie(a.begin, a.end) < std::tie(b.begin, b.end); });
    if (auto good = check_cover(file, entries, bytes.size - data_begin); !good) return good.error();

    for (const Entry& entry : entries) {
      auto tensor = make_tensor(file, entry, bytes, bytes.data + data_begin + entry.begin);
      if (!tensor) return tensor.error();
      read.tensors.push_back(*std::move(tensor));
    }
    std::sort(read.tensors.begin(), read.tensors.end(), [](auto& a, auto& b) { return a.name < b.name; });
    return read;
  });
}

}  // namespace bulkhead
