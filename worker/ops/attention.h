// Causal self-attention on queries, keys and values as one linear puts them out:
// side by side, which their gradients become in one pass.
//
// The attention itself is torch's, by the backend that it takes for the shape
// (cuDNN's on Hopper), on the CPU too.  The compute thread.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace bulkhead {

// qkv [N,T,3·width], contiguous: all heads' queries, all keys, all values; width a
// multiple of `heads`.  To [N,T,width]; position t depends on positions ≤ t only.
// `bias` [3·width]: that of the linear that made qkv, where its gradient was left
// to be taken here (linear.h); else undefined.
at::Tensor attention(const at::Tensor& qkv, std::int64_t heads, const at::Tensor& bias = {});

}  // namespace bulkhead
