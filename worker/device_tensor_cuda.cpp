#include <utility>

#include <ATen/ops/from_blob.h>
#include <c10/cuda/CUDAStream.h>

#include "device_tensor.h"
#include "protocol/device_memory.h"

namespace bulkhead {

at::Tensor device_tensor(const Tensor& wire, at::ScalarType type) {
  const DeviceBlock* block = wire.bytes.device;
  const auto ordinal = static_cast<c10::DeviceIndex>(block->device().ordinal());
  const at::Device device(at::kCUDA, ordinal);
  const auto stream = [ordinal] { return c10::cuda::getCurrentCUDAStream(ordinal).stream(); };
  const Status begun = block->begin_use(stream());
  CHECK(begun.ok(), begun.error().message);
  const auto strides = wire.strides.empty() ? dense_strides(wire.shape) : wire.strides;
  return at::from_blob(
      const_cast<std::byte*>(wire.bytes.data), wire.shape, strides,
      [owner = wire.bytes.owner, block, stream](void*) { block->end_use(stream()); },
      at::TensorOptions(type).device(device), device);
}

}  // namespace bulkhead
