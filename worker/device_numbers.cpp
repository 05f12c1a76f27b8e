#include "device_numbers.h"

#include <algorithm>
#include <sys/resource.h>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/VirtualGuardImpl.h>

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

void DeviceNumbers::send() {
  if (device_.is_cpu()) return;
  const at::Tensor all = take();
  const auto fits = std::find_if(spare_.begin(), spare_.end(),
                                 [&](const at::Tensor& spare) { return spare.sizes() == all.sizes(); });
  at::Tensor pinned;
  if (fits == spare_.end()) {
    pinned = at::empty(all.sizes(), at::TensorOptions(at::kDouble).pinned_memory(true));
  } else {
    pinned = std::move(*fits);
    spare_.erase(fits);
  }
  Sent sent{std::move(pinned), c10::Event(device_.type())};
  sent.numbers.copy_(all, /*non_blocking=*/true);
  sent.arrived.record(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_));
  sent_.push_back(std::move(sent));
}

std::vector<double> DeviceNumbers::read() {
  if (device_.is_cpu()) return std::exchange(known_, {});
  if (sent_.empty()) send();
  const Sent sent = std::move(sent_.front());
  sent_.pop_front();
  sent.arrived.synchronize();
  const auto* values = sent.numbers.const_data_ptr<double>();
  std::vector<double> read(values, values + sent.numbers.numel());
  constexpr std::size_t kSpares = 4;  // steps of several lengths take turns
  if (spare_.size() < kSpares) spare_.push_back(sent.numbers);
  return read;
}

std::int64_t peak_memory(at::Device device) {
  if (device.is_cpu()) {
    struct rusage usage {};
    ::getrusage(RUSAGE_SELF, &usage);
    return std::int64_t{1024} * usage.ru_maxrss;
  }
  using Kind = c10::CachingDeviceAllocator::StatType;
  const auto stats = c10::getDeviceAllocator(device.type())->getDeviceStats(device.index());
  return stats.allocated_bytes[static_cast<std::size_t>(Kind::AGGREGATE)].peak;
}

}  // namespace bulkhead
