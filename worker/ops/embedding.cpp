#include "ops/embedding.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/embedding_dense_backward.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ops/gradient_sum.h"
#include "ops/kernels.h"

namespace bulkhead {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

bool have_kernels(const at::Tensor& table) {
  return table.scalar_type() == at::kFloat && table.is_contiguous() && table.size(1) % 8 == 0 &&
         kernels::serve(table);
}

struct Embed : Function<Embed> {
  // Where there are no positions, `positions` is anything: autograd wants a tensor.
  static at::Tensor forward(AutogradContext* context, const at::Tensor& tokens, const at::Tensor& table,
                            const at::Tensor& positions, bool has_positions) {
    context->save_for_backward({tokens, table, positions});
    context->saved_data["has_positions"] = has_positions;
    if (have_kernels(table) && (!has_positions || have_kernels(positions))) {
      return kernels::embed(tokens.contiguous(), table, has_positions ? positions : at::Tensor());
    }
    const at::Tensor rows = at::embedding(table, tokens);
    return has_positions ? rows + positions.narrow(0, 0, tokens.size(1)) : rows;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &tokens = saved[0], &table = saved[1], &positions = saved[2];
    const at::Tensor gradient = gradients[0].contiguous();
    const GradientSum for_table = gradient_sum(table);
    const GradientSum for_positions =
        context->saved_data["has_positions"].toBool() ? gradient_sum(positions) : GradientSum();
    if (have_kernels(table) && !at::globalContext().deterministicAlgorithms()) {
      kernels::add_embedding_gradients(tokens.contiguous(), gradient, for_table.sum, for_positions.sum);
    } else {
      if (for_table.sum.defined()) {
        for_table.sum.add_(at::embedding_dense_backward(gradient, tokens, table.size(0), /*padding_idx=*/-1,
                                                        /*scale_grad_by_freq=*/false));
      }
      if (for_positions.sum.defined()) for_positions.sum.narrow(0, 0, tokens.size(1)).add_(gradient.sum(0));
    }
    return {at::Tensor(), for_table.returned, for_positions.returned, at::Tensor()};
  }
};

}  // namespace

at::Tensor embed(const at::Tensor& tokens, const at::Tensor& token_table, const at::Tensor& position_table) {
  const bool has_positions = position_table.defined();
  return Embed::apply(tokens, token_table, has_positions ? position_table : token_table, has_positions);
}

}  // namespace bulkhead
