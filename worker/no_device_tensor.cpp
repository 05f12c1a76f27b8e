// A build without CUDA.
#include "device_tensor.h"

namespace bulkhead {

at::Tensor device_tensor(const Tensor& wire, at::ScalarType) {
  CHECK(false, "\"" + wire.name + "\" lies on a GPU, and this build has no CUDA");
  return {};
}

}  // namespace bulkhead
