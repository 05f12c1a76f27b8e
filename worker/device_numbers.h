// Numbers that a device computes and the host wants later: collected without
// waiting, read at once.
//
// Reading a number as soon as it is queued would make the host wait for the
// device at each of them, and then the device for the host.  Compute thread.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

namespace bulkhead {

class DeviceNumbers {
 public:
  explicit DeviceNumbers(at::Device device) : device_(device) {}

  // A 0-dim tensor of any type; on the CPU it is read now.
  void add(const at::Tensor& number);

  // What was added since the last read, as one float64 tensor on the device, and
  // forgets it: for work that is recorded.  put() adds such a tensor's numbers.
  at::Tensor take();
  void put(const at::Tensor& numbers);
  void forget() { queued_.clear(); }

  // All that was added since the last read, in order.  Waits, once, for what is
  // queued on the device.
  std::vector<double> read();

 private:
  at::Device device_;
  std::vector<double> known_;       // on the CPU
  std::vector<at::Tensor> queued_;  // on a device: float64 [n]
};

// The most memory in bytes that torch has had on `device` so far; none for the CPU.
std::optional<std::int64_t> peak_memory(at::Device device);

}  // namespace bulkhead
