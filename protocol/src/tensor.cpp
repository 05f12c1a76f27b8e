#include "protocol/tensor.h"

#include <algorithm>
#include <array>
#include <cstring>
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

std::vector<std::int64_t> dense_strides(const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> strides(shape.size(), 1);
  for (std::size_t i = shape.size(); i-- > 1;) strides[i - 1] = strides[i] * shape[i];
  return strides;
}

Result<std::int64_t> span_bytes(DType dtype, const std::vector<std::int64_t>& shape,
                                const std::vector<std::int64_t>& strides) {
  const auto malformed = [](const char* what) { return Error{ErrorCode::kMalformed, what}; };
  if (shape.size() != strides.size()) return malformed("has strides that do not fit its shape");
  std::int64_t last = 0;      // element
  std::int64_t elements = 1;  // may not overflow either: somebody will count them
  bool is_empty = false;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] < 0 || strides[i] < 0) return malformed("has a negative extent or stride");
    is_empty |= shape[i] == 0;
    std::int64_t along = 0;
    if (__builtin_mul_overflow(std::max<std::int64_t>(shape[i] - 1, 0), strides[i], &along) ||
        __builtin_add_overflow(last, along, &last) || __builtin_mul_overflow(elements, shape[i], &elements))
      return malformed("is too large");
  }
  std::int64_t span = 0;
  std::int64_t counted = 0;
  if (__builtin_add_overflow(last, 1, &last) || __builtin_mul_overflow(last, size_bytes(dtype), &span) ||
      __builtin_mul_overflow(elements, size_bytes(dtype), &counted))
    return malformed("is too large");
  return is_empty ? 0 : span;
}

Result<Tensor> cut(const Tensor& whole, const Piece& piece) {
  const auto malformed = [&](const std::string& what) {
    return Error{ErrorCode::kMalformed, "\"" + piece.name + "\" " + what};
  };
  if (piece.dtype != whole.dtype) return malformed("is a piece of another type than \"" + whole.name + "\"");
  const Result<std::int64_t> span = span_bytes(piece.dtype, piece.shape, piece.strides);
  if (!span) return malformed(span.error().message);
  if (piece.offset % size_bytes(piece.dtype) != 0) return malformed("is not aligned");
  const auto size = static_cast<std::int64_t>(whole.bytes.size);
  if (piece.offset < 0 || piece.offset > size || *span > size - piece.offset)
    return malformed("reaches beyond \"" + whole.name + "\", of which it is a piece");
  Tensor tensor{piece.name, piece.dtype, piece.shape, whole.bytes};
  tensor.bytes.data += piece.offset;
  tensor.bytes.size = static_cast<std::size_t>(*span);
  if (*span > 0 && piece.strides != dense_strides(piece.shape)) tensor.strides = piece.strides;
  return tensor;
}

namespace {

// Copies the elements from dimension `dim` on and moves `to` along.
void gather(const Tensor& tensor, std::size_t dim, const std::byte* from, std::byte*& to) {
  const auto element = static_cast<std::size_t>(size_bytes(tensor.dtype));
  if (dim == tensor.shape.size()) {
    std::memcpy(to, from, element);
    to += element;
    return;
  }
  const auto step = static_cast<std::size_t>(tensor.strides[dim]) * element;
  for (std::int64_t i = 0; i < tensor.shape[dim]; ++i) {
    gather(tensor, dim + 1, from + static_cast<std::size_t>(i) * step, to);
  }
}

}  // namespace

Tensor dense(const Tensor& tensor) {
  if (tensor.strides.empty()) return tensor;
  std::vector<std::byte> bytes(static_cast<std::size_t>(tensor.size_bytes()));
  std::byte* to = bytes.data();
  gather(tensor, 0, tensor.bytes.data, to);
  return {tensor.name, tensor.dtype, tensor.shape, Blob::of(std::move(bytes))};
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
