#include "batch.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/ScalarType.h>

#include "device_tensor.h"
#include "protocol/log.h"

namespace bulkhead {
namespace {

constexpr std::pair<DType, at::ScalarType> kTypes[] = {
    {DType::kBool, at::kBool},      {DType::kUInt8, at::kByte},        {DType::kInt8, at::kChar},
    {DType::kInt16, at::kShort},    {DType::kInt32, at::kInt},         {DType::kInt64, at::kLong},
    {DType::kFloat16, at::kHalf},   {DType::kBFloat16, at::kBFloat16}, {DType::kFloat32, at::kFloat},
    {DType::kFloat64, at::kDouble},
};

DType wire_type(at::ScalarType type) {
  for (const auto& [wire, torch] : kTypes) {
    if (torch == type) return wire;
  }
  CHECK(false, "no wire type for " + std::string(c10::toString(type)));
  return DType::kFloat32;
}

std::optional<at::ScalarType> torch_type(DType type) {
  for (const auto& [wire, torch] : kTypes) {
    if (wire == type) return torch;
  }
  return std::nullopt;
}

// The size its shape asks for; nothing if that is negative or overflows.
std::optional<std::size_t> expected_bytes(const Tensor& tensor) {
  auto total = static_cast<std::int64_t>(size_bytes(tensor.dtype));
  for (const std::int64_t extent : tensor.shape) {
    if (extent < 0 || __builtin_mul_overflow(total, extent, &total)) return std::nullopt;
  }
  return static_cast<std::size_t>(total);
}

// What a tensor of BatchMemory holds.
void release(void* slot) { delete static_cast<Slot*>(slot); }

Tensor to_wire(const NamedTensor& named) {
  const at::Tensor value = named.value.detach().cpu().contiguous();
  Tensor wire;
  wire.name = named.name;
  wire.dtype = wire_type(value.scalar_type());
  wire.shape.assign(value.sizes().begin(), value.sizes().end());
  wire.bytes.data = static_cast<const std::byte*>(value.const_data_ptr());
  wire.bytes.size = value.nbytes();
  if (const Slot* slot = value.storage().data_ptr().cast_context<Slot>(&release)) {
    wire.bytes.owner = slot->owner;
    wire.bytes.segment = slot->segment;
  } else {
    wire.bytes.owner = std::make_shared<at::Tensor>(value);
  }
  return wire;
}

Error malformed(const Tensor& wire, const std::string& what) {
  return {ErrorCode::kMalformed, "tensor '" + wire.name + "' " + what};
}

Result<at::Tensor> from_wire(const Tensor& wire) {
  const auto type = torch_type(wire.dtype);
  if (!type) return malformed(wire, "has an unknown element type");
  if (wire.strides.empty() && expected_bytes(wire) != wire.bytes.size) {
    return malformed(wire,
                     "holds " + std::to_string(wire.bytes.size) + " bytes, not what its shape asks for");
  }
  if (wire.bytes.device != nullptr) return device_tensor(wire, *type);
  const auto is_bool = [](std::byte value) { return value <= std::byte{1}; };
  if (wire.dtype == DType::kBool &&
      !std::all_of(wire.bytes.data, wire.bytes.data + wire.bytes.size, is_bool)) {
    return malformed(wire, "holds a bool that is neither 0 nor 1");
  }
  if (wire.bytes.size == 0) return at::empty(wire.shape, *type);
  const auto address = reinterpret_cast<std::uintptr_t>(wire.bytes.data);
  if (address % static_cast<std::uintptr_t>(size_bytes(wire.dtype)) != 0) {
    at::Tensor copy = at::empty(wire.shape, *type);
    std::memcpy(copy.mutable_data_ptr(), wire.bytes.data, wire.bytes.size);
    return copy;
  }
  if (!wire.strides.empty()) {
    return at::from_blob(
        const_cast<std::byte*>(wire.bytes.data), wire.shape, wire.strides,
        [owner = wire.bytes.owner](void*) {}, at::TensorOptions(*type));
  }
  // from_blob has no read-only form; that nobody writes is this header's contract.
  return at::from_blob(
      const_cast<std::byte*>(wire.bytes.data), wire.shape, [owner = wire.bytes.owner](void*) {},
      at::TensorOptions(*type));
}

}  // namespace

const at::Tensor* find_tensor(const TensorBatch& batch, std::string_view name) {
  for (const auto& named : batch) {
    if (named.name == name) return &named.value;
  }
  return nullptr;
}

const at::Tensor& tensor_named(const TensorBatch& batch, std::string_view name) {
  const at::Tensor* found = find_tensor(batch, name);
  CHECK(found != nullptr, "no '" + std::string(name) + "' in the batch");
  return *found;
}

at::Tensor BatchMemory::empty(at::IntArrayRef shape, at::ScalarType type) {
  const auto bytes = static_cast<std::size_t>(c10::multiply_integers(shape)) * c10::elementSize(type);
  if (bytes < kWorthSharing) return at::empty(shape, type);
  Arena& arena = c10::isFloatingType(type) ? floats_ : others_;
  Result<Slot> slot = arena.allocate(bytes);
  if (!slot) {
    if (arena.complains()) spdlog::warn("{}; batches are copied instead", slot.error().message);
    return at::empty(shape, type);
  }
  auto* held = new Slot(std::move(*slot));
  return at::for_blob(held->data, shape)
      .context(held, &release)
      .options(at::TensorOptions(type))
      .make_tensor();
}

TensorBatch to_device(const TensorBatch& batch, at::Device device) {
  TensorBatch moved;
  moved.reserve(batch.size());
  for (const auto& named : batch)
    moved.push_back({named.name, named.value.to(device, /*non_blocking=*/true)});
  return moved;
}

Batch to_wire(const TensorBatch& batch) {
  Batch wire;
  wire.reserve(batch.size());
  for (const auto& named : batch) wire.push_back(to_wire(named));
  return wire;
}

std::size_t bytes_of(const Batch& batch) {
  std::size_t bytes = 0;
  for (const Tensor& tensor : batch) bytes += tensor.bytes.size;
  return bytes;
}

Result<TensorBatch> from_wire(const Batch& batch) {
  TensorBatch tensors;
  tensors.reserve(batch.size());
  for (const auto& wire : batch) {
    auto tensor = from_wire(wire);
    if (!tensor) return tensor.error();
    tensors.push_back({wire.name, std::move(*tensor)});
  }
  return tensors;
}

}  // namespace bulkhead
