// What the CPU tests say of gloo, said of NCCL; needs as many GPUs as ranks.  A
// world of one goes the way of several.
#include <functional>
#include <thread>
#include <vector>

#include <ATen/ATen.h>
#include <c10/cuda/CUDAFunctions.h>
#include <gtest/gtest.h>

#include "communicator.h"
#include "gradient_reducer.h"
#include "optim/optimizer.h"
#include "support/rank_threads.h"
#include "unit/worker/reducer_checks.h"

namespace bulkhead {
namespace {

using testing::kMeetTimeout;

// Runs `body` as every rank of a world over NCCL, one GPU each.
void run_nccl_ranks(std::int64_t world_size, const std::function<void(Communicator&)>& body) {
  const auto hosted = Rendezvous::host("127.0.0.1", 0, kMeetTimeout);
  ASSERT_TRUE(hosted.ok()) << hosted.error().message;
  std::vector<std::jthread> threads;
  for (std::int64_t rank = 0; rank < world_size; ++rank) {
    threads.emplace_back([&, rank] {
      auto rendezvous = rank == 0 ? hosted : Rendezvous::connect("127.0.0.1", hosted->port(), kMeetTimeout);
      ASSERT_TRUE(rendezvous.ok()) << rendezvous.error().message;
      CommunicatorOptions options;
      options.rank = WorkerId(rank);
      options.local_rank = rank;
      options.world_size = world_size;
      options.timeout = kMeetTimeout;
      options.meet_alone = true;
      const auto communicator = make_nccl_communicator(*rendezvous, options);
      ASSERT_TRUE(communicator.ok()) << communicator.error().message;
      body(**communicator);
    });
  }
}

class Nccl : public ::testing::TestWithParam<std::int64_t> {
 protected:
  void SetUp() override {
    if (c10::cuda::device_count() < GetParam()) GTEST_SKIP() << "needs " << GetParam() << " GPUs";
  }
};
INSTANTIATE_TEST_SUITE_P(World, Nccl, ::testing::Values(1, 2));

at::TensorOptions on(const Communicator& communicator) {
  return at::dtype(at::kFloat).device(at::kCUDA, static_cast<c10::DeviceIndex>(communicator.rank().value));
}

TEST_P(Nccl, SumsBroadcastsAndGathersAsGloo) {
  run_nccl_ranks(GetParam(), [&](Communicator& communicator) {
    const auto world = static_cast<double>(GetParam());
    const auto rank = static_cast<double>(communicator.rank().value);
    at::Tensor sum = at::full({1000}, rank + 1, on(communicator));
    ASSERT_TRUE(communicator.all_reduce_sum(sum).ok());
    EXPECT_TRUE(at::equal(sum.cpu(), at::full({1000}, world * (world + 1) / 2, at::kFloat)));
    at::Tensor last = at::full({3}, rank, on(communicator));
    ASSERT_TRUE(communicator.broadcast(last, WorkerId(GetParam() - 1)).ok());
    EXPECT_TRUE(at::equal(last.cpu(), at::full({3}, world - 1, at::kFloat)));
    EXPECT_EQ(communicator.all_gather("here")->size(), static_cast<std::size_t>(GetParam()));
    EXPECT_TRUE(communicator.barrier().ok());
  });
}

TEST_P(Nccl, AveragesGradientsOverTheWeightsPresent) {
  run_nccl_ranks(GetParam(), [&](Communicator& communicator) {
    const at::Tensor parameter = at::ones({4, 4}, on(communicator)).requires_grad_();
    auto reducer = GradientReducer::make({{"w", parameter}}, communicator);
    ASSERT_TRUE(reducer.ok()) << reducer.error().message;
    for (int step = 0; step < 3; ++step) {
      reducer->start_step();
      // Rank 0 alone has something to train on.
      const bool skips = communicator.rank() != WorkerId(0);
      ASSERT_TRUE(reducer->backward((parameter * 3).sum(), skips ? 0 : 1, true).ok());
      EXPECT_EQ(*reducer->finish(), 1.0);
      EXPECT_TRUE(at::equal(parameter.grad().cpu(), at::full({4, 4}, 3.0, at::kFloat)));
    }
  });
}

// Three buckets and more, whose sums begin while the backward pass goes on.
TEST_P(Nccl, SumsBucketsAsOneRankAddsThem) {
  constexpr std::int64_t kWidth = 2048, kLayers = 5;
  const auto loss = [](const std::vector<NamedTensor>& layers, const at::Tensor& input) {
    at::Tensor x = input;
    for (const NamedTensor& layer : layers) x = at::linear(x, layer.value).tanh();
    return x.pow(2).mean();
  };
  const auto make_layers = [](at::TensorOptions options) {
    std::vector<NamedTensor> layers;
    for (std::int64_t i = 0; i < kLayers; ++i) {
      const auto generator = at::detail::createCPUGenerator(static_cast<std::uint64_t>(i));
      const at::Tensor start = at::randn({kWidth, kWidth}, generator) / 40;
      layers.push_back({std::to_string(i), start.to(options.device()).requires_grad_()});
    }
    return layers;
  };
  const auto input = [](std::int64_t rank, at::TensorOptions options) {
    const auto generator = at::detail::createCPUGenerator(static_cast<std::uint64_t>(90 + rank));
    return at::randn({64, kWidth}, generator).to(options.device());
  };
  run_nccl_ranks(GetParam(), [&](Communicator& communicator) {
    const std::vector<NamedTensor> plain = make_layers(on(communicator));
    for (std::int64_t rank = 0; rank < GetParam(); ++rank) {
      (loss(plain, input(rank, on(communicator))) / static_cast<double>(GetParam())).backward();
    }
    const std::vector<NamedTensor> layers = make_layers(on(communicator));
    auto reducer = GradientReducer::make(layers, communicator);
    ASSERT_TRUE(reducer.ok()) << reducer.error().message;
    for (int step = 0; step < 3; ++step) {
      reducer->start_step();
      const at::Tensor own = input(communicator.rank().value, on(communicator));
      ASSERT_TRUE(reducer->backward(loss(layers, own), 1, true).ok());
      EXPECT_EQ(*reducer->finish(), 1.0);  // its own weight: the sum is on the device
      for (std::size_t i = 0; i < layers.size(); ++i) {
        const at::Tensor off = layers[i].value.grad() - plain[i].value.grad();
        EXPECT_LT((off.norm() / plain[i].value.grad().norm()).item<double>(), 1e-5) << step << " " << i;
      }
    }
  });
}

TEST_P(Nccl, EachStepsGradientsAreItsOwn) {
  run_nccl_ranks(GetParam(), [](Communicator& communicator) {
    testing::expect_steps_of_their_own(communicator, on(communicator).device());
  });
}

TEST(Cuda, EachStepsGradientsAreItsOwn) {
  if (c10::cuda::device_count() < 1) GTEST_SKIP() << "needs a GPU";
  testing::expect_steps_of_their_own(*make_solo_communicator(), at::kCUDA);
}

TEST(Cuda, OptimizerStepsAsOnTheCpu) {
  if (c10::cuda::device_count() < 1) GTEST_SKIP() << "needs a GPU";
  for (const std::string type : {"adamw", "sgd"}) {
    OptimizerConfig config;
    config.type = type;
    at::manual_seed(1);
    const at::Tensor cpu = at::randn({64, 32}).requires_grad_();
    const at::Tensor gpu = cpu.detach().to(at::kCUDA).requires_grad_();
    Optimizer on_cpu({{"w", cpu}}, config);
    Optimizer on_gpu({{"w", gpu}}, config);
    for (int step = 0; step < 5; ++step) {
      cpu.mutable_grad() = at::randn({64, 32});
      gpu.mutable_grad() = cpu.grad().to(at::kCUDA);
      EXPECT_NEAR(on_cpu.clip_grad_norm(1), on_gpu.clip_grad_norm(1), 1e-3);
      ASSERT_TRUE(on_cpu.step(0.01).ok());
      ASSERT_TRUE(on_gpu.step(0.01).ok());
    }
    EXPECT_TRUE(at::allclose(gpu.detach().cpu(), cpu.detach(), 1e-4, 1e-6)) << type;
  }
}

}  // namespace
}  // namespace bulkhead
