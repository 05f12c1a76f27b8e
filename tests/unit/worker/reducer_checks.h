// Steps in which an operation writes gradients to their lasting place instead of
// adding to them, for any device: each step's are its own, whatever came before.
#pragma once

#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "gradient_reducer.h"
#include "ops/linear.h"

namespace bulkhead::testing {

// As one of the ranks, all of which call it.  In the third step the last rank skips.
inline void expect_steps_of_their_own(Communicator& communicator, at::Device device) {
  struct Layers {
    at::Tensor shared, bias, plain;
  };
  const auto make_layers = [&] {
    const auto made = [&](std::vector<std::int64_t> shape, std::uint64_t seed) {
      return at::randn(shape, at::detail::createCPUGenerator(seed)).to(device).requires_grad_();
    };
    return Layers{made({64, 64}, 1), made({64}, 2), made({64, 64}, 3)};
  };
  // One weight twice in operations, one in torch's own.
  const auto loss = [&](const Layers& layers, std::int64_t rank, int step) {
    const auto generator = at::detail::createCPUGenerator(static_cast<std::uint64_t>(100 * rank + step));
    const at::Tensor x = at::randn({32, 64}, generator).to(device, at::kBFloat16);
    const auto short_of = [](const at::Tensor& tensor) {
      return Factor{tensor, tensor.detach().to(at::kBFloat16)};
    };
    const at::Tensor once = linear(x, short_of(layers.shared), short_of(layers.bias));
    const at::Tensor twice = linear(once, short_of(layers.shared), short_of(layers.bias));
    return at::linear(twice.to(at::kFloat), layers.plain).pow(2).mean();
  };
  const Layers layers = make_layers();
  const std::vector<NamedTensor> parameters{
      {"shared", layers.shared}, {"bias", layers.bias}, {"plain", layers.plain}};
  auto reducer = GradientReducer::make(parameters, communicator);
  ASSERT_TRUE(reducer.ok()) << reducer.error().message;
  const std::int64_t world = communicator.world_size(), rank = communicator.rank().value;
  for (int step = 0; step < 5; ++step) {
    const std::int64_t skipping = step == 2 && world > 1 ? world - 1 : -1;
    reducer->start_step();
    for (int micro = 0; micro < 2; ++micro) {
      const at::Tensor own = loss(layers, rank, 2 * step + micro);
      ASSERT_TRUE(reducer->backward(own, rank == skipping ? 0 : 1, micro == 1).ok());
    }
    ASSERT_TRUE(reducer->finish().ok());
    const Layers fresh = make_layers();
    const double present = 2.0 * static_cast<double>(skipping < 0 ? world : world - 1);
    for (std::int64_t each = 0; each < world; ++each) {
      for (int micro = 0; micro < 2 && each != skipping; ++micro) {
        (loss(fresh, each, 2 * step + micro) / present).backward();
      }
    }
    const std::vector<at::Tensor> expected{fresh.shared.grad(), fresh.bias.grad(), fresh.plain.grad()};
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const at::Tensor off = parameters[i].value.grad() - expected[i];
      EXPECT_LT((off.norm() / expected[i].norm()).item<double>(), 1e-2)
          << parameters[i].name << " in step " << step << " on rank " << rank;
    }
  }
}

}  // namespace bulkhead::testing
