#include "protocol/tensor.h"

#include <array>
#include <utility>

namespace bulkhead {
namespace {

struct DTypeInfo {
  DType dtype;
  std::string_view name;
  std::int64_t size_bytes;
};

constexpr std::array kDTypes = {
    DTypeInfo{DType::kBool, "bool", 1},       DTypeInfo{DType::kUInt8, "uint8", 1},
    DTypeInfo{DType::kInt8, "int8", 1},       DTypeInfo{DType::kInt16, "int16", 2},
    DTypeInfo{DType::kInt32, "int32", 4},     DTypeInfo{DType::kInt64, "int64", 8},
    DTypeInfo{DType::kFloat16, "float16", 2}, DTypeInfo{DType::kBFloat16, "bfloat16", 2},
    DTypeInfo{DType::kFloat32, "float32", 4}, DTypeInfo{DType::kFloat64, "float64", 8},
};

}  // namespace

std::string_view name_of(DType dtype) { return kDTypes[static_cast<std::size_t>(dtype)].name; }

std::int64_t size_bytes(DType dtype) { return kDTypes[static_cast<std::size_t>(dtype)].size_bytes; }

Result<DType> dtype_named(std::string_view name) {
  for (const DTypeInfo& info : kDTypes) {
    if (info.name == name) return info.dtype;
  }
  return Error{ErrorCode::kMalformed, "\"" + std::string(name) + "\" is not a tensor type"};
}

Blob Blob::of(std::string bytes) {
  auto owner = std::make_shared<std::string>(std::move(bytes));
  return {owner, reinterpret_cast<const std::byte*>(owner->data()), owner->size()};
}

Blob Blob::of(std::vector<std::byte> bytes) {
  auto owner = std::make_shared<std::vector<std::byte>>(std::move(bytes));
  return {owner, owner->data(), owner->size()};
}

std::int64_t Tensor::size_bytes() const {
  std::int64_t size = bulkhead::size_bytes(dtype);
  for (const std::int64_t extent : shape) size *= extent;
  return size;
}

std::string describe(const Batch& batch) {
  std::string text;
  for (const Tensor& tensor : batch) {
    if (!text.empty()) text += ", ";
    text += tensor.name + " " + std::string(name_of(tensor.dtype)) + "[";
    for (std::size_t i = 0; i < tensor.shape.size(); ++i)
      text += (i ? "," : "") + std::to_string(tensor.shape[i]);
    text += "]";
  }
  return text;
}

}  // namespace bulkhead
