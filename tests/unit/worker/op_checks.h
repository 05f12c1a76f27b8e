// The fused operations against plain autograd in float32, for any device and
// type: what they return, and every gradient.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "ops/add_norm.h"
#include "ops/attention.h"
#include "ops/embedding.h"
#include "ops/head_loss.h"
#include "ops/linear.h"

namespace bulkhead::testing {

struct OpCase {
  std::string name;
  at::Device device;
  at::ScalarType type;
  double tolerance;  // of ‖difference‖ / ‖expected‖
};

class Ops : public ::testing::TestWithParam<OpCase> {
 protected:
  using Tensors = std::vector<at::Tensor>;

  void SetUp() override {
    if (GetParam().device.is_cuda() && !at::hasCUDA()) GTEST_SKIP() << "needs a GPU";
    at::manual_seed(7);
  }

  at::Tensor numbers(at::IntArrayRef shape, double scale = 1) const {
    return (at::randn(shape, at::kFloat) * scale).to(GetParam().type).to(at::kFloat).to(GetParam().device);
  }
  at::Tensor leaf(const at::Tensor& value) const { return value.clone().requires_grad_(); }
  Factor factor(const at::Tensor& parameter) const {
    return {parameter, parameter.detach().to(GetParam().type)};
  }

  void expect_close(const at::Tensor& actual, const at::Tensor& expected, const std::string& what) const {
    ASSERT_EQ(actual.sizes(), expected.sizes()) << what;
    const at::Tensor wanted = expected.detach().to(at::kDouble);
    const double off = (actual.detach().to(at::kDouble) - wanted).norm().item<double>();
    EXPECT_LE(off, GetParam().tolerance * (wanted.norm().item<double>() + 1e-12)) << what;
  }

  // `op` and `plain` take the same inputs, of which the first `activations` are
  // in the type of the case for `op`; both return outputs that are summed with
  // fixed factors and gone backward through.  Twice: with gradients to return, and
  // with a place that they are added to.
  void compare(const Tensors& inputs, std::size_t activations,
               const std::function<Tensors(const Tensors&)>& op,
               const std::function<Tensors(const Tensors&)>& plain) const {
    Tensors ours, theirs;
    for (const at::Tensor& input : inputs) {
      ours.push_back(leaf(ours.size() < activations ? input.to(GetParam().type) : input));
      theirs.push_back(leaf(input));
    }
    for (int pass = 1; pass <= 2; ++pass) {  // the second adds to the first
      const Tensors actual = op(ours), expected = plain(theirs);
      at::Tensor our_sum = at::zeros({}, inputs[0].options()), their_sum = at::zeros({}, inputs[0].options());
      for (std::size_t i = 0; i < actual.size(); ++i) {
        expect_close(actual[i], expected[i], "output " + std::to_string(i));
        const at::Tensor factors =
            expected[i].dim() == 0 ? at::full_like(expected[i], 3) : numbers(expected[i].sizes());
        our_sum = our_sum + (actual[i].to(at::kFloat) * factors).sum();
        their_sum = their_sum + (expected[i] * factors).sum();
      }
      our_sum.backward();
      their_sum.backward();
      for (std::size_t i = 0; i < inputs.size(); ++i) {
        ASSERT_TRUE(ours[i].grad().defined()) << i;
        expect_close(ours[i].grad(), theirs[i].grad(),
                     "gradient " + std::to_string(i) + " after " + std::to_string(pass));
      }
    }
  }
};

TEST_P(Ops, LinearIsPlainLinear) {
  compare(
      {numbers({40, 32}), numbers({24, 32}, 0.2), numbers({24})}, 1,
      [&](const Tensors& t) { return Tensors{linear(t[0], factor(t[1]), factor(t[2]))}; },
      [](const Tensors& t) { return Tensors{at::linear(t[0], t[1], t[2])}; });
}

TEST_P(Ops, GeluNetworkIsItsThreeLayers) {
  compare(
      {numbers({64, 32}), numbers({128, 32}, 0.2), numbers({128}), numbers({32, 128}, 0.1), numbers({32})}, 1,
      [&](const Tensors& t) {
        return Tensors{gelu_network(t[0], factor(t[1]), factor(t[2]), factor(t[3]), factor(t[4]))};
      },
      [](const Tensors& t) {
        return Tensors{at::linear(at::gelu(at::linear(t[0], t[1], t[2]), "tanh"), t[3], t[4])};
      });
}

TEST_P(Ops, AddNormIsASumAndItsLayerNorm) {
  for (const std::int64_t width : {64, 384, 768, 2048}) {
    compare(
        {numbers({100, width}), numbers({100, width}) + 0.5, numbers({width}, 0.1) + 1, numbers({width})}, 0,
        [&](const Tensors& t) {
          const Normed made = add_norm(t[0], {t[1].to(GetParam().type), {}}, t[2], t[3], GetParam().type);
          return Tensors{made.sum, made.normed};
        },
        [](const Tensors& t) {
          const at::Tensor sum = t[0] + t[1];
          return Tensors{sum, at::layer_norm(sum, {sum.size(1)}, t[2], t[3])};
        });
  }
}

// A linear's bias whose gradient each of the three takes instead of the linear.
TEST_P(Ops, AddNormTakesTheGradientOfTheBranchsBias) {
  for (const std::int64_t width : {64, 768, 1024, 2048}) {
    compare(
        {numbers({100, 32}), numbers({100, width}), numbers({width, 32}, 0.2), numbers({width}),
         numbers({width}, 0.1) + 1, numbers({width})},
        1,
        [&](const Tensors& t) {
          const at::Tensor branch = linear(t[0], factor(t[2]), left_out(factor(t[3])));
          const Normed made = add_norm(t[1], {branch, t[3]}, t[4], t[5], GetParam().type);
          return Tensors{made.sum, made.normed};
        },
        [](const Tensors& t) {
          const at::Tensor sum = t[1] + at::linear(t[0], t[2], t[3]);
          return Tensors{sum, at::layer_norm(sum, {sum.size(1)}, t[4], t[5])};
        });
  }
}

TEST_P(Ops, AttentionTakesTheGradientOfTheBiasBeforeIt) {
  for (const std::int64_t heads : {2, 4}) {
    const auto plain = [heads](const Tensors& t) {
      const auto parts = at::linear(t[0], t[1], t[2]).chunk(3, -1);
      const auto of_heads = [&](const at::Tensor& part) {
        return part.view({3, 40, heads, -1}).transpose(1, 2);
      };
      const at::Tensor scores = of_heads(parts[0]).matmul(of_heads(parts[1]).transpose(2, 3)) /
                                std::sqrt(static_cast<double>(parts[0].size(-1) / heads));
      const at::Tensor later = at::ones({40, 40}, scores.options()).triu(1).to(at::kBool);
      const at::Tensor weights = scores.masked_fill(later, -1e30).softmax(-1);
      return Tensors{weights.matmul(of_heads(parts[2])).transpose(1, 2).reshape({3, 40, -1})};
    };
    const Tensors inputs{numbers({120, 64}), numbers({3 * 64, 64}, 0.15), numbers({3 * 64}, 0.5)};
    compare(
        inputs, 1,
        [&](const Tensors& t) {
          const at::Tensor qkv = linear(t[0], factor(t[1]), left_out(factor(t[2])));
          return Tensors{attention(qkv.view({3, 40, -1}), heads, t[2])};
        },
        plain);
    compare(
        inputs, 1,
        [&](const Tensors& t) {
          const at::Tensor qkv = linear(t[0], factor(t[1]), factor(t[2]));
          return Tensors{attention(qkv.view({3, 40, -1}), heads)};
        },
        plain);
  }
}

TEST_P(Ops, WithBiasGradientIsTheSameLinear) {
  compare(
      {numbers({40, 32}), numbers({24, 32}, 0.2), numbers({24})}, 1,
      [&](const Tensors& t) {
        return Tensors{with_bias_gradient(linear(t[0], factor(t[1]), left_out(factor(t[2]))), t[2])};
      },
      [](const Tensors& t) { return Tensors{at::linear(t[0], t[1], t[2])}; });
}

TEST_P(Ops, EmbedIsTheSumOfTwoRows) {
  const at::Tensor tokens = at::randint(0, 50, {7, 12}, at::kLong).to(GetParam().device);
  for (const bool deterministic : {false, true}) {
    at::globalContext().setDeterministicAlgorithms(deterministic, /*warn_only=*/true);
    compare(
        {numbers({50, 24}), numbers({16, 24})}, 0,
        [&](const Tensors& t) { return Tensors{embed(tokens, t[0], t[1])}; },
        [&](const Tensors& t) { return Tensors{at::embedding(t[0], tokens) + t[1].narrow(0, 0, 12)}; });
    compare(
        {numbers({50, 24})}, 0, [&](const Tensors& t) { return Tensors{embed(tokens, t[0], {})}; },
        [&](const Tensors& t) { return Tensors{at::embedding(t[0], tokens)}; });
  }
  at::globalContext().setDeterministicAlgorithms(false, false);
}

TEST_P(Ops, AddNormWithoutABranchIsLayerNorm) {
  compare(
      {numbers({33, 64}), numbers({64}, 0.1) + 1, numbers({64})}, 0,
      [&](const Tensors& t) {
        const Normed made = add_norm(t[0], {}, t[1], t[2], GetParam().type);
        return Tensors{made.sum, made.normed};
      },
      [](const Tensors& t) {
        return Tensors{t[0], at::layer_norm(t[0], {64}, t[1], t[2])};
      });
}

TEST_P(Ops, HeadLossIsTheCrossEntropyOfALinear) {
  for (const std::int64_t classes : {64, 65, 1000}) {  // 65: rows of scores are padded
    at::Tensor labels = at::randint(0, classes, {48}, at::kLong);
    labels.narrow(0, 5, 7).fill_(-100);
    labels = labels.to(GetParam().device);
    const at::Tensor x = numbers({48, 32}), weight = numbers({classes, 32}, 0.3);
    compare(
        {x, weight}, 1,
        [&](const Tensors& t) { return Tensors{head_loss(t[0], factor(t[1]), labels, 41).loss}; },
        [&](const Tensors& t) { return Tensors{at::cross_entropy_loss(at::linear(t[0], t[1]), labels)}; });
    const at::NoGradGuard no_grad;
    const auto scores = at::linear(x.to(GetParam().type), weight.to(GetParam().type));
    const HeadLoss made = head_loss(x.to(GetParam().type), factor(weight), labels, 41);
    expect_close(made.loss, at::cross_entropy_loss(at::linear(x, weight), labels), "without gradients");
    EXPECT_EQ(made.correct.item<std::int64_t>(), scores.argmax(-1).eq(labels).sum().item<std::int64_t>());
  }
}

TEST_P(Ops, OfEqualScoresTheFirstIsTheChoice) {
  const at::NoGradGuard no_grad;
  const at::Tensor x = at::ones({3, 8}, at::device(GetParam().device).dtype(GetParam().type));
  const at::Tensor weight = at::ones({72, 8}, at::device(GetParam().device).dtype(at::kFloat));
  const at::Tensor labels = at::tensor({0, 1, 71}, at::kLong).to(GetParam().device);
  EXPECT_EQ(head_loss(x, factor(weight), labels, 3).correct.item<std::int64_t>(), 1);
}

TEST_P(Ops, FrozenParametersGetNoGradient) {
  const at::Tensor x = leaf(numbers({16, 32}).to(GetParam().type));
  const at::Tensor weight = numbers({8, 32}), bias = numbers({8});
  linear(x, factor(weight), factor(bias)).to(at::kFloat).sum().backward();
  EXPECT_FALSE(weight.grad().defined());
  EXPECT_TRUE(x.grad().defined());
}

inline std::string name_of_case(const ::testing::TestParamInfo<OpCase>& info) { return info.param.name; }

}  // namespace bulkhead::testing
