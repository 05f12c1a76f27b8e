// Tensors as they travel: a name, a type, a shape and bytes that nobody
// copies.  No arithmetic here; the worker turns them into torch tensors, a
// host into views.  Values only; any thread.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/result.h"

namespace bulkhead {

class Segment;      // arena.h
class DeviceBlock;  // device_memory.h

enum class DType : std::uint8_t {
  kBool,
  kUInt8,
  kInt8,
  kInt16,
  kInt32,
  kInt64,
  kFloat16,
  kBFloat16,
  kFloat32,
  kFloat64,
};

// "float32", as numpy and torch spell it.
std::string_view name_of(DType dtype);
Result<DType> dtype_named(std::string_view name);
std::int64_t size_bytes(DType dtype);

// Bytes with shared ownership: the owner keeps them alive, nobody writes.
struct Blob {
  std::shared_ptr<const void> owner;
  const std::byte* data = nullptr;
  std::size_t size = 0;
  const Segment* segment = nullptr;     // of shared memory, in which they lie; `owner` keeps it
  const DeviceBlock* device = nullptr;  // they lie there on a GPU: `data` is an address of it, not to be read

  std::string_view text() const { return {reinterpret_cast<const char*>(data), size}; }
  static Blob of(std::string bytes);
  static Blob of(std::vector<std::byte> bytes);
};

// Where bytes lie in a segment of their sender's.
struct Place {
  std::int64_t segment = 0;
  std::int64_t offset = 0;

  friend auto operator<=>(const Place&, const Place&) = default;
  static void visit(auto& self, auto&& field) {
    field("segment", self.segment);
    field("offset", self.offset);
  }
};

// Row-major and dense, unless `strides` are there: then the elements lie spread
// over `bytes`, which begin with the first and end with the last.
struct Tensor {
  std::string name;
  DType dtype = DType::kFloat32;
  std::vector<std::int64_t> shape;
  Blob bytes;
  std::vector<std::int64_t> strides{};  // in elements, none negative; empty: dense

  // Product of the shape, times the element size.  The codec has checked that
  // it does not overflow and, of a dense one, equals bytes.size.
  std::int64_t size_bytes() const;
  // Same name, type and shape.
  bool same_schema(const Tensor& other) const {
    return name == other.name && dtype == other.dtype && shape == other.shape;
  }
};

// A batch: named tensors in a fixed order.
using Batch = std::vector<Tensor>;

// A tensor that is a piece of another: nothing of it needs to travel.
struct Piece {
  std::string name;
  std::string of;           // the other
  std::int64_t offset = 0;  // bytes, of the first element
  DType dtype = DType::kFloat32;
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> strides;  // in elements

  static void visit(auto& self, auto&& field) {
    field("name", self.name);
    field("of", self.of);
    field("offset", self.offset);
    field("dtype", self.dtype);
    field("shape", self.shape);
    field("strides", self.strides);
  }
};

// Strides of a dense, row-major tensor.
std::vector<std::int64_t> dense_strides(const std::vector<std::int64_t>& shape);

// Bytes from the first element to the end of the last, 0 where there is none.
// Malformed, in a sentence that goes behind the tensor's name: more or fewer
// strides than extents, something negative, an overflow.
Result<std::int64_t> span_bytes(DType dtype, const std::vector<std::int64_t>& shape,
                                const std::vector<std::int64_t>& strides);

// That piece of `whole`, sharing its memory.  Malformed where it is not inside,
// not aligned or of another type.
Result<Tensor> cut(const Tensor& whole, const Piece& piece);

// The same elements, row by row: a copy where there are strides.
Tensor dense(const Tensor& tensor);

// "input_ids int64[16,256], labels int64[16,256]"
std::string describe(const Batch& batch);

}  // namespace bulkhead
