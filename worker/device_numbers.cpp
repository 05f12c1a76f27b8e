#include "device_numbers.h"

#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/stack.h>
#include <c10/core/CachingDeviceAllocator.h>

namespace bulkhead {

void DeviceNumbers::add(const at::Tensor& number) {
  if (device_.is_cpu()) {
    known_.push_back(number.item<double>());
  } else {
    queued_.push_back(number.detach().to(device_, at::kDouble));
  }
}

std::vector<double> DeviceNumbers::read() {
  if (queued_.empty()) return std::exchange(known_, {});
  const at::NoGradGuard no_grad;
  const at::Tensor all = at::stack(std::exchange(queued_, {})).cpu();
  const auto* values = all.const_data_ptr<double>();
  return {values, values + all.numel()};
}

std::optional<std::int64_t> peak_memory(at::Device device) {
  if (device.is_cpu()) return std::nullopt;
  using Kind = c10::CachingDeviceAllocator::StatType;
  const auto stats = c10::getDeviceAllocator(device.type())->getDeviceStats(device.index());
  return stats.allocated_bytes[static_cast<std::size_t>(Kind::AGGREGATE)].peak;
}

}  // namespace bulkhead
