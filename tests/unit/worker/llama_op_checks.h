// op_checks.h for what Llama's blocks need besides.
#pragma once

#include "ops/rms_norm.h"
#include "ops/rotary.h"
#include "ops/swiglu.h"
#include "unit/worker/op_checks.h"

namespace bulkhead::testing {

TEST_P(Ops, LinearWithoutABiasIsPlainLinear) {
  compare(
      {numbers({40, 32}), numbers({24, 32}, 0.2)}, 1,
      [&](const Tensors& t) { return Tensors{linear(t[0], factor(t[1]), {})}; },
      [](const Tensors& t) { return Tensors{at::linear(t[0], t[1])}; });
}

inline at::Tensor plain_rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return x * at::rsqrt(x.square().mean(-1, true) + eps) * weight;
}

TEST_P(Ops, AddRmsNormIsASumAndItsRmsNorm) {
  for (const std::int64_t width : {64, 768, 2048, 4096, 5120}) {
    compare(
        {numbers({50, width}), numbers({50, width}) + 0.5, numbers({width}, 0.1) + 1}, 0,
        [&](const Tensors& t) {
          const Normed made = add_rms_norm(t[0], t[1].to(GetParam().type), t[2], 1e-5, GetParam().type);
          return Tensors{made.sum, made.normed};
        },
        [](const Tensors& t) {
          const at::Tensor sum = t[0] + t[1];
          return Tensors{sum, plain_rms_norm(sum, t[2], 1e-5)};
        });
  }
}

TEST_P(Ops, AddRmsNormWithoutABranchIsRmsNorm) {
  compare(
      {numbers({700, 64}), numbers({64}, 0.1) + 1}, 0,
      [&](const Tensors& t) {
        const Normed made = add_rms_norm(t[0], {}, t[1], 0.1, GetParam().type);
        return Tensors{made.sum, made.normed};
      },
      [](const Tensors& t) {
        return Tensors{t[0], plain_rms_norm(t[0], t[1], 0.1)};
      });
}

TEST_P(Ops, SwigluIsSiluOfTheGateTimesTheOther) {
  compare(
      {numbers({33, 64}, 3), numbers({33, 64})}, 2,
      [](const Tensors& t) { return Tensors{swiglu(t[0], t[1])}; },
      [](const Tensors& t) { return Tensors{at::silu(t[0]) * t[1]}; });
}

// With the heads as a product leaves them, and behind a transposition.
TEST_P(Ops, RotaryTurnsPairsOfHalves) {
  const std::int64_t length = 7, half = 16;
  const at::Tensor angles = at::outer(at::arange(length + 2, at::kFloat), at::rand({half}, at::kFloat));
  const at::Tensor cos = angles.cos().to(GetParam().device), sin = angles.sin().to(GetParam().device);
  compare(
      {numbers({3, length, 2, 2 * half})}, 1,
      [&](const Tensors& t) {
        return Tensors{rotary(t[0], cos, sin),
                       rotary(t[0].transpose(0, 2).contiguous().transpose(0, 2), cos, sin)};
      },
      [&](const Tensors& t) {
        const at::Tensor c = cos.narrow(0, 0, length).unsqueeze(1), s = sin.narrow(0, 0, length).unsqueeze(1);
        const auto parts = t[0].chunk(2, 3);
        const at::Tensor made = at::cat({parts[0] * c - parts[1] * s, parts[1] * c + parts[0] * s}, 3);
        return Tensors{made, made};
      });
}

}  // namespace bulkhead::testing
