#include "device_numbers.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace bulkhead {
namespace {

TEST(DeviceNumbers, AreReadOnceInOrder) {
  DeviceNumbers numbers(at::kCPU);
  numbers.add(at::scalar_tensor(1.5, at::kFloat));
  numbers.add(at::scalar_tensor(7, at::kLong));
  EXPECT_EQ(numbers.read(), (std::vector<double>{1.5, 7}));
  EXPECT_TRUE(numbers.read().empty());
  EXPECT_GT(peak_memory(at::kCPU), std::int64_t{1} << 20);
}

}  // namespace
}  // namespace bulkhead
