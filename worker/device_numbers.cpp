#include "device_numbers.h"

#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <c10/core/CachingDeviceAllocator.h>

namespace bulkhead {

void DeviceNumbers::add(const at::Tensor& number) {
  if (device_.is_cpu()) {
    known_.push_back(number.item<double>());
  } else {
    queued_.push_back(number.detach().to(device_, at::kDouble).reshape({1}));
  }
}

at::Tensor DeviceNumbers::take() {
  const at::NoGradGuard no_grad;
  return at::cat(std::exchange(queued_, {}));
}

void DeviceNumbers::put(const at::Tensor& numbers) { queued_.push_back(numbers); }

std::vector<double> DeviceNumbers::read() {
  if (queued_.empty()) return std::exchange(known_, {});
  const at::Tensor all = take().cpu();
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
