#include "optim/optimizer.h"

#include <cmath>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace bulkhead {
namespace {

OptimizerConfig adamw() {
  OptimizerConfig config;
  config.type = "adamw";
  config.weight_decay = 0.1;
  return config;
}

OptimizerConfig sgd(double momentum) {
  OptimizerConfig config;
  config.type = "sgd";
  config.weight_decay = 0.1;
  config.momentum = momentum;
  return config;
}

std::vector<NamedTensor> make_parameters() {
  at::manual_seed(1);
  std::vector<NamedTensor> parameters{{"weight", at::randn({5, 7})}, {"bias", at::randn({7})}};
  for (NamedTensor& parameter : parameters) parameter.value.set_requires_grad(true);
  return parameters;
}

// Gradients that are a function of the step alone.
void set_gradients(const std::vector<NamedTensor>& parameters, std::int64_t step) {
  at::manual_seed(static_cast<std::uint64_t>(100 + step));
  for (const NamedTensor& parameter : parameters) {
    at::Tensor value = parameter.value;
    value.mutable_grad() = at::randn(value.sizes());
  }
}

// Steps begin … end − 1, one after the other.
void train(Optimizer& optimizer, const std::vector<NamedTensor>& parameters, std::int64_t begin,
           std::int64_t end) {
  for (std::int64_t step = begin; step < end; ++step) {
    set_gradients(parameters, step);
    ASSERT_TRUE(optimizer.step(0.01).ok());
  }
}

// One parameter as the papers write it, in double.
struct Reference {
  OptimizerConfig config;
  double decay = 0;
  at::Tensor value;
  at::Tensor first;
  at::Tensor second;

  Reference(OptimizerConfig c, double d, const at::Tensor& initial)
      : config(std::move(c)),
        decay(d),
        value(initial.detach().to(at::kDouble).clone()),
        first(at::zeros_like(value)),
        second(at::zeros_like(value)) {}

  void step(at::Tensor gradient, std::int64_t t, double lr) {
    gradient = gradient.to(at::kDouble);
    if (config.type == "sgd") {
      first = config.momentum * first + gradient + decay * value;
      value = value - lr * first;
      return;
    }
    value = value * (1 - lr * decay);
    first = config.beta1 * first + (1 - config.beta1) * gradient;
    second = config.beta2 * second + (1 - config.beta2) * gradient * gradient;
    const at::Tensor mean = first / (1 - std::pow(config.beta1, t));
    const at::Tensor spread = (second / (1 - std::pow(config.beta2, t))).sqrt();
    value = value - lr * mean / (spread + config.eps);
  }
};

void expect_equals_reference(const OptimizerConfig& config) {
  const auto parameters = make_parameters();
  Reference weight(config, config.weight_decay, parameters[0].value);
  Reference bias(config, 0, parameters[1].value);  // one dimension: no decay
  Optimizer optimizer(parameters, config);
  for (std::int64_t step = 1; step <= 20; ++step) {
    set_gradients(parameters, step);
    weight.step(parameters[0].value.grad(), step, 0.01);
    bias.step(parameters[1].value.grad(), step, 0.01);
    ASSERT_TRUE(optimizer.step(0.01).ok());
  }
  EXPECT_TRUE(at::allclose(parameters[0].value.detach().to(at::kDouble), weight.value, 1e-4, 1e-5));
  EXPECT_TRUE(at::allclose(parameters[1].value.detach().to(at::kDouble), bias.value, 1e-4, 1e-5));
  EXPECT_EQ(optimizer.steps(), 20);
}

TEST(Optimizer, AdamwFollowsTheReferenceAndDecaysMatricesOnly) { expect_equals_reference(adamw()); }

TEST(Optimizer, SgdFollowsTheReference) {
  expect_equals_reference(sgd(0.9));
  expect_equals_reference(sgd(0));
}

TEST(Optimizer, ResumesToTheSameBits) {
  for (const OptimizerConfig& config : {adamw(), sgd(0.9), sgd(0)}) {
    const auto undisturbed = make_parameters();
    Optimizer whole(undisturbed, config);
    train(whole, undisturbed, 0, 10);

    const auto before = make_parameters();
    Optimizer first_half(before, config);
    train(first_half, before, 0, 5);
    std::vector<NamedTensor> saved;
    for (const NamedTensor& tensor : first_half.state()) saved.push_back({tensor.name, tensor.value.clone()});
    std::vector<NamedTensor> after = before;
    for (NamedTensor& parameter : after) parameter.value = parameter.value.detach().clone().requires_grad_();
    Optimizer second_half(after, config);
    ASSERT_TRUE(second_half.load_state(saved).ok());
    train(second_half, after, 5, 10);

    for (std::size_t i = 0; i < after.size(); ++i) {
      EXPECT_TRUE(at::equal(after[i].value, undisturbed[i].value)) << config.type << " " << after[i].name;
    }
    EXPECT_EQ(second_half.steps(), 10);
  }
}

TEST(Optimizer, NamesItsState) {
  const auto parameters = make_parameters();
  std::vector<std::string> names;
  for (const NamedTensor& tensor : Optimizer(parameters, adamw()).state()) names.push_back(tensor.name);
  EXPECT_EQ(names, (std::vector<std::string>{"step", "exp_avg.weight", "exp_avg_sq.weight", "exp_avg.bias",
                                             "exp_avg_sq.bias"}));
}

TEST(Optimizer, RefusesAForeignStateAndKeepsItsOwn) {
  const auto parameters = make_parameters();
  Optimizer optimizer(parameters, adamw());
  train(optimizer, parameters, 0, 3);
  std::vector<NamedTensor> wrong_shape = optimizer.state();
  for (NamedTensor& tensor : wrong_shape) tensor.value = at::zeros_like(tensor.value);
  wrong_shape[1].value = at::zeros({5, 8});
  auto refused = optimizer.load_state(wrong_shape);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().message,
            "the optimizer state's exp_avg.weight is Float[5,8], but this model needs Float[5,7]");
  EXPECT_EQ(optimizer.steps(), 3);
  EXPECT_GT(find_tensor(optimizer.state(), "exp_avg.bias")->abs().sum().item<double>(), 0);

  std::vector<NamedTensor> incomplete = optimizer.state();
  incomplete.pop_back();
  EXPECT_FALSE(optimizer.load_state(incomplete).ok());
  std::vector<NamedTensor> other = optimizer.state();
  other.push_back({"momentum.weight", at::zeros({5, 7})});
  EXPECT_FALSE(optimizer.load_state(other).ok());
}

TEST(Optimizer, ClipsToTheNormAndReturnsTheOldOne) {
  const auto parameters = make_parameters();
  Optimizer optimizer(parameters, adamw());
  for (const NamedTensor& parameter : parameters) {
    at::Tensor value = parameter.value;
    value.mutable_grad() = at::ones(value.sizes());
  }
  const double norm = std::sqrt(5.0 * 7 + 7);
  EXPECT_NEAR(optimizer.clip_grad_norm(0), norm, 1e-5);
  EXPECT_NEAR(optimizer.clip_grad_norm(100), norm, 1e-5);
  EXPECT_EQ(parameters[0].value.grad().min().item<double>(), 1.0);
  EXPECT_NEAR(optimizer.clip_grad_norm(0.5), norm, 1e-5);
  EXPECT_NEAR(optimizer.clip_grad_norm(0), 0.5, 1e-5);
}

TEST(Optimizer, LeavesGradientsOfANormThatIsNotFinite) {
  const auto parameters = make_parameters();
  Optimizer optimizer(parameters, adamw());
  set_gradients(parameters, 0);
  parameters[1].value.grad()[0] = std::numeric_limits<double>::infinity();
  const at::Tensor before = parameters[0].value.grad().clone();
  EXPECT_TRUE(std::isinf(optimizer.clip_grad_norm(1.0)));
  EXPECT_TRUE(at::equal(parameters[0].value.grad(), before));
}

}  // namespace
}  // namespace bulkhead
