// On the CPU: the reference of what the kernels do on a GPU.
#include "unit/worker/llama_op_checks.h"
#include "unit/worker/op_checks.h"

namespace bulkhead::testing {

INSTANTIATE_TEST_SUITE_P(Cpu, Ops,
                         ::testing::Values(OpCase{"Float", at::kCPU, at::kFloat, 1e-5},
                                           OpCase{"BFloat16", at::kCPU, at::kBFloat16, 2e-2}),
                         name_of_case);

}  // namespace bulkhead::testing
