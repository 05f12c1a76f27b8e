// A sharded optimizer: the bits of a whole one, for any number of ranks.
#include "optim/shares.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "optim/optimizer.h"
#include "support/rank_threads.h"

namespace bulkhead {
namespace {

using testing::run_ranks;

const bool kOneThread = (at::set_num_threads(1), true);

at::Tensor drawn(at::IntArrayRef shape, std::uint64_t seed) {
  return at::randn(shape, at::detail::createCPUGenerator(seed));
}

// Of sizes that are no multiple of anything, one of them smaller than a part.
std::vector<NamedTensor> make_parameters() {
  std::vector<NamedTensor> parameters;
  const std::vector<std::vector<std::int64_t>> shapes{{37, 23}, {37}, {5, 301}, {1}, {300, 9}};
  for (const auto& shape : shapes) {
    const auto i = parameters.size();
    parameters.push_back({"p" + std::to_string(i), drawn(shape, i).requires_grad_()});
  }
  return parameters;
}

void set_gradients(const std::vector<NamedTensor>& parameters, std::int64_t step) {
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    at::Tensor value = parameters[i].value;
    value.mutable_grad() = drawn(value.sizes(), 1000 * static_cast<std::uint64_t>(step + 1) + i);
  }
}

void train(Optimizer& optimizer, const std::vector<NamedTensor>& parameters, Communicator& communicator,
           std::int64_t begin, std::int64_t end) {
  for (std::int64_t step = begin; step < end; ++step) {
    set_gradients(parameters, step);
    optimizer.clip_grad_norm(1.0);
    ASSERT_TRUE(optimizer.step(0.01).ok());
    ASSERT_TRUE(optimizer.exchange(communicator).ok());
  }
}

OptimizerConfig config_of(bool sharded) {
  OptimizerConfig config;
  config.sharded = sharded;
  return config;
}

std::vector<NamedTensor> copies_of(const std::vector<NamedTensor>& tensors, at::ScalarType type) {
  std::vector<NamedTensor> copies;
  for (const NamedTensor& tensor : tensors)
    copies.push_back({tensor.name, tensor.value.detach().to(type, false, true)});
  return copies;
}

void expect_equal(const std::vector<NamedTensor>& found, const std::vector<NamedTensor>& wanted) {
  ASSERT_EQ(found.size(), wanted.size());
  for (const NamedTensor& tensor : wanted) {
    const at::Tensor* other = find_tensor(found, tensor.name);
    ASSERT_NE(other, nullptr) << tensor.name;
    EXPECT_TRUE(at::equal(*other, tensor.value)) << tensor.name;
  }
}

TEST(ShardedOptimizer, HasTheBitsOfAWholeOneForAnyNumberOfRanks) {
  const auto solo = make_solo_communicator();
  const auto wanted = make_parameters();
  Optimizer whole(wanted, config_of(false));
  train(whole, wanted, *solo, 0, 6);
  for (const std::int64_t ranks : {2, 3}) {
    run_ranks(ranks, [&](Communicator& communicator) {
      const auto parameters = make_parameters();
      const auto copies = copies_of(parameters, at::kBFloat16);
      Optimizer optimizer(parameters, config_of(true), copies, {communicator.rank().value, ranks});
      train(optimizer, parameters, communicator, 0, 6);
      expect_equal(parameters, wanted);
      expect_equal(copies, copies_of(wanted, at::kBFloat16));
      const auto state = optimizer.whole_state(communicator);
      ASSERT_TRUE(state.ok());
      expect_equal(*state, whole.state());
    });
  }
}

TEST(ShardedOptimizer, ResumesFromTheStateOfAnotherNumberOfRanks) {
  const auto solo = make_solo_communicator();
  const auto wanted = make_parameters();
  Optimizer whole(wanted, config_of(false));
  train(whole, wanted, *solo, 0, 3);
  const auto saved = copies_of(whole.state(), at::kFloat);
  std::vector<NamedTensor> state{{"step", at::scalar_tensor(3, at::kLong)}};
  state.insert(state.end(), saved.begin() + 1, saved.end());
  const auto halfway = copies_of(wanted, at::kFloat);
  train(whole, wanted, *solo, 3, 6);
  run_ranks(2, [&](Communicator& communicator) {
    auto parameters = make_parameters();
    Optimizer optimizer(parameters, config_of(true), {}, {communicator.rank().value, 2});
    ASSERT_TRUE(optimizer.load_state(state).ok());
    {
      const at::NoGradGuard no_grad;
      for (std::size_t i = 0; i < parameters.size(); ++i) parameters[i].value.copy_(halfway[i].value);
    }
    train(optimizer, parameters, communicator, 3, 6);
    expect_equal(parameters, wanted);
    EXPECT_EQ(optimizer.steps(), 6);
  });
}

TEST(Shares, AreEqualPartsThatCoverEverythingOnce) {
  const std::int64_t ranks = 4;
  const auto whole = make_parameters();
  std::vector<std::int64_t> covered(whole.size());
  std::int64_t most = 0;
  for (std::int64_t rank = 0; rank < ranks; ++rank) {
    std::vector<at::Tensor> parameters;
    for (const NamedTensor& parameter : make_parameters()) parameters.push_back(parameter.value);
    const Shares shares(parameters, {rank, ranks});
    std::int64_t own = 0;
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const Share& share = shares.own()[i];
      EXPECT_TRUE(share.count == 0 || share.begin == covered[i]) << i;
      covered[i] += share.count;
      own += share.count;
      EXPECT_TRUE(at::equal(parameters[i], whole[i].value));
    }
    most = std::max(most, own);
  }
  std::int64_t total = 0;
  for (std::size_t i = 0; i < whole.size(); ++i) {
    EXPECT_EQ(covered[i], whole[i].value.numel());
    total += covered[i];
  }
  EXPECT_LE(most, total / ranks + 5 * 64);
}

}  // namespace
}  // namespace bulkhead
