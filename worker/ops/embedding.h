// The first layer of a language model: a row for each token and one for each
// position, added, as one operation.
//
// On a GPU with kernels (kernels.h) neither the rows nor the tables' gradients
// are made apart; elsewhere, and where runs must be equal, by torch's operations.
// The compute thread.
#pragma once

#include <ATen/core/Tensor.h>

namespace bulkhead {

// tokens int64 [N,T], all below the table's length; tables float32 [any,width] and
// [≥ T,width], the second perhaps undefined: [N,T,width] float32.  Gradients go
// where gradient_sum.h says.
at::Tensor embed(const at::Tensor& tokens, const at::Tensor& token_table, const at::Tensor& position_table);

}  // namespace bulkhead
