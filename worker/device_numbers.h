// Numbers that a device computes and the host wants later: collected without
// waiting, read at once.
//
// Reading a number as soon as it is queued would make the host wait for the
// device at each of them, and then the device for the host.  Compute thread.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>

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

  // Starts to bring to the host what was added since the last send().
  void send();

  // What the oldest send() sent (which is called here where it was not), in order.
  // Waits for what was queued on the device before it, and no longer.
  std::vector<double> read();

 private:
  at::Device device_;
  std::vector<double> known_;       // on the CPU
  std::vector<at::Tensor> queued_;  // on a device: float64 [n]
  struct Sent {
    at::Tensor numbers;  // pinned
    c10::Event arrived;
  };
  std::deque<Sent> sent_;
  std::vector<at::Tensor> spare_;  // pinned, read: to be sent into again
};

// The most memory in bytes that torch has had on `device` so far; for the CPU that
// the process has had in RAM.
std::int64_t peak_memory(at::Device device);

}  // namespace bulkhead
