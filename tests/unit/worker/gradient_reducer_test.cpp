#include "gradient_reducer.h"

#include <limits>
#include <mutex>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "support/rank_threads.h"
#include "unit/worker/reducer_checks.h"

namespace bulkhead {
namespace {

using testing::run_ranks;

// A small network of its own: two linear layers.
struct Net {
  std::vector<NamedTensor> parameters;

  Net() {
    const auto generator = at::detail::createCPUGenerator(7);
    const auto parameter = [&](std::vector<std::int64_t> shape) {
      return (at::randn(shape, generator) * 0.3).requires_grad_();
    };
    parameters = {{"in.weight", parameter({8, 4})},
                  {"in.bias", parameter({8})},
                  {"out.weight", parameter({3, 8})},
                  {"out.bias", parameter({3})}};
  }

  // The mean over the samples of a batch [N, 4].
  at::Tensor loss(const at::Tensor& input) const {
    const at::Tensor hidden = at::relu(at::linear(input, parameters[0].value, parameters[1].value));
    return at::linear(hidden, parameters[2].value, parameters[3].value).pow(2).mean();
  }
  std::vector<at::Tensor> gradients() const {
    std::vector<at::Tensor> all;
    for (const NamedTensor& parameter : parameters) all.push_back(parameter.value.grad().clone());
    return all;
  }
};

// The samples of micro-batch `index`: [4, 4].
at::Tensor batch(std::int64_t index) {
  const auto generator = at::detail::createCPUGenerator(static_cast<std::uint64_t>(50 + index));
  return at::randn({4, 4}, generator);
}

// The gradients of a world of one over the given batches as one step.
std::vector<at::Tensor> alone(const std::vector<at::Tensor>& batches) {
  const Net net;
  const auto solo = make_solo_communicator();
  auto reducer = GradientReducer::make(net.parameters, *solo);
  reducer->start_step();
  for (std::size_t i = 0; i < batches.size(); ++i) {
    EXPECT_TRUE(reducer->backward(net.loss(batches[i]), 1, i + 1 == batches.size()).ok());
  }
  EXPECT_EQ(*reducer->finish(), static_cast<double>(batches.size()));
  return net.gradients();
}

void expect_close(const std::vector<at::Tensor>& left, const std::vector<at::Tensor>& right) {
  ASSERT_EQ(left.size(), right.size());
  for (std::size_t i = 0; i < left.size(); ++i) EXPECT_TRUE(at::allclose(left[i], right[i], 1e-5, 1e-7)) << i;
}

void expect_equal(const std::vector<at::Tensor>& left, const std::vector<at::Tensor>& right) {
  ASSERT_EQ(left.size(), right.size());
  for (std::size_t i = 0; i < left.size(); ++i) EXPECT_TRUE(at::equal(left[i], right[i])) << i;
}

TEST(GradientReducer, TwoRanksAverageAsOneRankWithTheDoubledBatch) {
  const auto expected = alone({at::cat({batch(0), batch(1)})});
  run_ranks(2, [&](Communicator& communicator) {
    const Net net;
    auto reducer = GradientReducer::make(net.parameters, communicator);
    ASSERT_TRUE(reducer.ok()) << reducer.error().message;
    for (int step = 0; step < 3; ++step) {
      reducer->start_step();
      const auto done = reducer->backward(net.loss(batch(communicator.rank().value)), 1, true);
      ASSERT_TRUE(done.ok()) << done.error().message;
      EXPECT_EQ(*reducer->finish(), 2.0);
      expect_close(net.gradients(), expected);
    }
  });
}

TEST(GradientReducer, AccumulatesMicroBatchesBeforeItSums) {
  const auto expected = alone({at::cat({batch(0), batch(1), batch(2), batch(3), batch(4), batch(5)})});
  expect_close(alone({batch(0), batch(1), batch(2), batch(3), batch(4), batch(5)}), expected);
  run_ranks(2, [&](Communicator& communicator) {
    const Net net;
    auto reducer = GradientReducer::make(net.parameters, communicator);
    for (int step = 0; step < 2; ++step) {
      reducer->start_step();
      for (std::int64_t micro = 0; micro < 3; ++micro) {
        const at::Tensor loss = net.loss(batch(communicator.rank().value * 3 + micro));
        ASSERT_TRUE(reducer->backward(loss, 1, micro == 2).ok());
      }
      EXPECT_EQ(*reducer->finish(), 6.0);
      expect_close(net.gradients(), expected);
    }
  });
}

TEST(GradientReducer, ARankThatSkipsDoesNotDiluteTheOthers) {
  const auto expected = alone({batch(0)});
  run_ranks(2, [&](Communicator& communicator) {
    const Net net;
    auto reducer = GradientReducer::make(net.parameters, communicator);
    reducer->start_step();
    const bool skips = communicator.rank() == WorkerId(1);
    const at::Tensor loss = skips ? at::Tensor() : net.loss(batch(0));
    ASSERT_TRUE(reducer->backward(loss, skips ? 0 : 1, true).ok());
    EXPECT_EQ(*reducer->finish(), 1.0);
    expect_equal(net.gradients(), expected);
  });
}

TEST(GradientReducer, ASkippedBatchMayHoldAnything) {
  const auto expected = alone({batch(0)});
  run_ranks(2, [&](Communicator& communicator) {
    const Net net;
    auto reducer = GradientReducer::make(net.parameters, communicator);
    reducer->start_step();
    const at::Tensor nan = at::full({4, 4}, std::numeric_limits<double>::quiet_NaN(), at::kFloat);
    const bool skips = communicator.rank() == WorkerId(0);
    ASSERT_TRUE(reducer->backward(net.loss(skips ? nan : batch(0)), skips ? 0 : 1, false).ok());
    ASSERT_TRUE(reducer->backward(net.loss(nan), 0, true).ok());
    EXPECT_EQ(*reducer->finish(), 1.0);
    expect_equal(net.gradients(), expected);
  });
}

TEST(GradientReducer, GivesZeroGradientsWhenAllRanksSkip) {
  const auto expect_zero = [](Communicator& communicator) {
    const Net net;
    auto reducer = GradientReducer::make(net.parameters, communicator);
    reducer->start_step();
    ASSERT_TRUE(reducer->backward(at::Tensor(), 0, false).ok());
    ASSERT_TRUE(reducer->backward(at::Tensor(), 0, true).ok());
    EXPECT_EQ(*reducer->finish(), 0.0);
    for (const at::Tensor& gradient : net.gradients())
      EXPECT_TRUE(at::equal(gradient, at::zeros_like(gradient)));
  };
  run_ranks(2, expect_zero);
  const auto solo = make_solo_communicator();
  expect_zero(*solo);
}

TEST(GradientReducer, EachStepsGradientsAreItsOwn) {
  run_ranks(2,
            [](Communicator& communicator) { testing::expect_steps_of_their_own(communicator, at::kCPU); });
  const auto solo = make_solo_communicator();
  testing::expect_steps_of_their_own(*solo, at::kCPU);
}

TEST(GradientReducer, WeighsMicroBatches) {
  const Net plain;
  const at::Tensor mixed = 0.25 * plain.loss(batch(0)) + 0.75 * plain.loss(batch(1));
  mixed.backward();
  run_ranks(2, [&](Communicator& communicator) {
    const Net net;
    auto reducer = GradientReducer::make(net.parameters, communicator);
    reducer->start_step();
    const std::int64_t rank = communicator.rank().value;
    ASSERT_TRUE(reducer->backward(net.loss(batch(rank)), rank == 0 ? 1 : 3, true).ok());
    EXPECT_EQ(*reducer->finish(), 4.0);
    expect_close(net.gradients(), plain.gradients());
  });
}

TEST(GradientReducer, GivesTheSameBitsAgain) {
  std::mutex mutex;
  std::vector<std::vector<at::Tensor>> seen;
  for (int run = 0; run < 2; ++run) {
    run_ranks(2, [&](Communicator& communicator) {
      const Net net;
      auto reducer = GradientReducer::make(net.parameters, communicator);
      reducer->start_step();
      ASSERT_TRUE(reducer->backward(net.loss(batch(communicator.rank().value)), 1, true).ok());
      ASSERT_TRUE(reducer->finish().ok());
      const std::lock_guard lock(mutex);
      seen.push_back(net.gradients());
    });
  }
  ASSERT_EQ(seen.size(), 4u);
  for (const auto& gradients : seen) expect_equal(gradients, seen[0]);
}

TEST(GradientReducer, AbortEndsABackwardPassThatWaitsForALostRank) {
  std::promise<Communicator*> waiting;
  std::promise<void> aborted;
  std::promise<void> over;
  run_ranks(2, [&](Communicator& communicator) {
    if (communicator.rank() == WorkerId(1)) {
      waiting.get_future().get()->abort();
      aborted.set_value();
      over.get_future().wait();
      return;
    }
    const Net net;
    auto reducer = GradientReducer::make(net.parameters, communicator);
    reducer->start_step();
    waiting.set_value(&communicator);
    const auto done = reducer->backward(net.loss(batch(0)), 1, true);
    EXPECT_FALSE(done.ok());
    aborted.get_future().wait();
    over.set_value();
  });
}

TEST(GradientReducer, NamesAParameterThatTakesNoPart) {
  Net net;
  net.parameters.push_back({"spare.weight", at::zeros({2, 2}).requires_grad_()});
  const auto solo = make_solo_communicator();
  auto reducer = GradientReducer::make(net.parameters, *solo);
  reducer->start_step();
  const auto refused = reducer->backward(net.loss(batch(0)), 1, true);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().message,
            "parameter spare.weight takes no part in the loss, so it has no gradient");
}

TEST(GradientReducer, LeavesFrozenParametersAlone) {
  Net net;
  net.parameters[0].value.set_requires_grad(false);
  const auto solo = make_solo_communicator();
  auto reducer = GradientReducer::make(net.parameters, *solo);
  reducer->start_step();
  ASSERT_TRUE(reducer->backward(net.loss(batch(0)), 1, true).ok());
  EXPECT_EQ(*reducer->finish(), 1.0);
  EXPECT_FALSE(net.parameters[0].value.grad().defined());
}

TEST(GradientReducer, RefusesAModelWithNothingToTrain) {
  const auto solo = make_solo_communicator();
  EXPECT_FALSE(GradientReducer::make({{"frozen", at::zeros({2})}}, *solo).ok());
}

TEST(GradientReducer, FillsBucketsInReverseOrderWithASmallFirstOne) {
  const std::int64_t mebibyte = 1024 * 1024;
  const auto of_bytes = [](std::int64_t bytes) { return at::empty({bytes}, at::kByte); };
  const std::vector<at::Tensor> tensors{
      of_bytes(1), of_bytes(20 * mebibyte),  of_bytes(20 * mebibyte), of_bytes(mebibyte),
      of_bytes(1), at::empty({}, at::kFloat)};
  EXPECT_EQ(GradientReducer::bucket_order(tensors),
            (std::vector<std::vector<std::size_t>>{{5}, {4, 3, 2, 1}, {0}}));
}

}  // namespace
}  // namespace bulkhead
