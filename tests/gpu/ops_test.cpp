// The kernels, against plain autograd on the same GPU.
#include "ops/kernels.h"
#include "optim/optimizer.h"
#include "unit/worker/llama_op_checks.h"
#include "unit/worker/op_checks.h"

namespace bulkhead::testing {

INSTANTIATE_TEST_SUITE_P(Gpu, Ops,
                         ::testing::Values(OpCase{"Float", at::kCUDA, at::kFloat, 1e-4},
                                           OpCase{"BFloat16", at::kCUDA, at::kBFloat16, 2e-2}),
                         name_of_case);

TEST(Kernels, ClippedAdamwIsTheCpus) {
  if (!at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
  OptimizerConfig config;
  at::manual_seed(1);
  // Of odd sizes, larger than a chunk, and not on a multiple of 16 bytes.
  const at::Tensor odd = at::randn({70001}, at::kFloat);
  const std::vector<at::Tensor> starts{at::randn({300, 257}, at::kFloat), at::randn({9}, at::kFloat),
                                       odd.narrow(0, 1, 70000)};
  std::vector<NamedTensor> on_cpu, on_gpu, copies;
  for (const at::Tensor& start : starts) {
    const std::string name = "p" + std::to_string(on_cpu.size());
    on_cpu.push_back({name, start.clone().requires_grad_()});
    at::Tensor there = name == "p2" ? odd.to(at::kCUDA).narrow(0, 1, 70000) : start.to(at::kCUDA);
    on_gpu.push_back({name, there.detach().requires_grad_()});
    copies.push_back({name, at::zeros(start.sizes(), at::device(at::kCUDA).dtype(at::kBFloat16))});
  }
  Optimizer cpu(on_cpu, config);
  Optimizer gpu(on_gpu, config, copies);
  for (int step = 0; step < 5; ++step) {
    for (std::size_t i = 0; i < starts.size(); ++i) {
      on_cpu[i].value.mutable_grad() = at::randn(starts[i].sizes(), at::kFloat);
      on_gpu[i].value.mutable_grad() = on_cpu[i].value.grad().to(at::kCUDA);
    }
    const auto wanted = cpu.clip_and_step(0.01, 1.0);
    const auto norm = gpu.clip_and_step(0.01, 1.0);
    ASSERT_TRUE(norm.ok()) << norm.error().message;
    EXPECT_NEAR(norm->item<double>(), wanted->item<double>(), 1e-3);
  }
  EXPECT_EQ(gpu.steps(), 5);
  for (std::size_t i = 0; i < starts.size(); ++i) {
    const at::Tensor trained = on_gpu[i].value.detach();
    EXPECT_TRUE(at::allclose(trained.cpu(), on_cpu[i].value.detach(), 1e-4, 1e-5)) << i;
    EXPECT_TRUE(at::equal(copies[i].value, trained.to(at::kBFloat16))) << i;
  }
}

}  // namespace bulkhead::testing
