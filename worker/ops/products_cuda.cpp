// Products by cublasLt, which can do bias, GELU and its gradient on the way out.
//
// The first use of a shape asks cublasLt for its ways to do it and takes the
// fastest, by the clock (for the gradient of GELU, its own kernel is one more); where runs must be equal it
// takes the first, since the clock may decide otherwise next time.
#include <algorithm>
#include <array>
#include <cublasLt.h>
#include <functional>
#include <map>
#include <optional>

#include <ATen/Context.h>
#include <ATen/cuda/CUDAContext.h>
#include <ATen/cuda/CUDAEvent.h>
#include <ATen/cuda/Exceptions.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/empty_strided.h>

#include "ops/kernels.h"

namespace bulkhead::kernels {
namespace {

constexpr std::size_t kWorkspaceBytes = 64U << 20;
constexpr int kMostWays = 16;
constexpr int kLaps = 5;
constexpr int kRounds = 3;
constexpr int kAhead = 8;  // times that the workspace is cleared before a round: about 0.2 ms on an H200

// A matrix as cublasLt sees it: column-major, so ours transposed.
struct Operand {
  const at::Tensor& matrix;
  bool transposed;  // of what cublasLt sees

  std::int64_t rows() const { return matrix.size(1); }
  std::int64_t columns() const { return matrix.size(0); }
  std::int64_t stride() const { return matrix.stride(0); }
};

struct Epilogue {
  cublasLtEpilogue_t kind = CUBLASLT_EPILOGUE_DEFAULT;
  const void* bias = nullptr;
  void* inner = nullptr;  // what GELU is, or was, applied to; as wide as the result
};

// How a shape is multiplied.  Its handles live as long as the process.
struct Plan {
  cublasLtMatmulDesc_t description{};
  cublasLtMatrixLayout_t a{}, b{}, result{};
  std::vector<cublasLtMatmulHeuristicResult_t> ways;
  std::optional<std::size_t> chosen;
};
using Key = std::array<std::int64_t, 13>;

// Each thread that multiplies has its own: forward and backward passes have no
// shape in common but by chance.
struct Workbench {
  std::map<Key, Plan> plans;
  std::map<std::array<std::int64_t, 4>, bool> gelu_after;  // whether a product's GELU comes after it
  at::Tensor workspace;
};
Workbench& workbench() {
  // Never destroyed: at a thread's end CUDA may have gone already.
  static thread_local auto* bench = new Workbench();
  return *bench;
}

cublasLtMatrixLayout_t layout(cudaDataType_t type, std::int64_t rows, std::int64_t columns,
                              std::int64_t stride) {
  cublasLtMatrixLayout_t made{};
  TORCH_CUDABLAS_CHECK(cublasLtMatrixLayoutCreate(&made, type, static_cast<std::uint64_t>(rows),
                                                  static_cast<std::uint64_t>(columns), stride));
  return made;
}

template <class T>
void set(cublasLtMatmulDesc_t description, cublasLtMatmulDescAttributes_t name, T value) {
  TORCH_CUDABLAS_CHECK(cublasLtMatmulDescSetAttribute(description, name, &value, sizeof value));
}

void point(const Plan& plan, const Epilogue& epilogue) {
  if (epilogue.bias != nullptr) set(plan.description, CUBLASLT_MATMUL_DESC_BIAS_POINTER, epilogue.bias);
  if (epilogue.inner != nullptr) {
    set(plan.description, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, epilogue.inner);
  }
}

Plan make_plan(const Operand& a, const Operand& b, const at::Tensor& result, const Epilogue& epilogue) {
  Plan plan;
  const auto type = result.scalar_type() == at::kFloat ? CUDA_R_32F : CUDA_R_16BF;
  TORCH_CUDABLAS_CHECK(cublasLtMatmulDescCreate(&plan.description, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  set(plan.description, CUBLASLT_MATMUL_DESC_TRANSA, a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(plan.description, CUBLASLT_MATMUL_DESC_TRANSB, b.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(plan.description, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue.kind);
  if (epilogue.bias != nullptr) set(plan.description, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, CUDA_R_16BF);
  if (epilogue.inner != nullptr) set(plan.description, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, result.size(1));
  plan.a = layout(CUDA_R_16BF, a.rows(), a.columns(), a.stride());
  plan.b = layout(CUDA_R_16BF, b.rows(), b.columns(), b.stride());
  plan.result = layout(type, result.size(1), result.size(0), result.stride(0));
  point(plan, epilogue);
  cublasLtMatmulPreference_t preference{};
  TORCH_CUDABLAS_CHECK(cublasLtMatmulPreferenceCreate(&preference));
  const std::size_t bytes = kWorkspaceBytes;
  TORCH_CUDABLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(
      preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof bytes));
  plan.ways.resize(kMostWays);
  int found = 0;
  const auto status = cublasLtMatmulAlgoGetHeuristic(at::cuda::getCurrentCUDABlasLtHandle(), plan.description,
                                                     plan.a, plan.b, plan.result, plan.result, preference,
                                                     kMostWays, plan.ways.data(), &found);
  cublasLtMatmulPreferenceDestroy(preference);
  TORCH_CHECK(status == CUBLAS_STATUS_SUCCESS && found > 0, "cublasLt knows no way to multiply these shapes");
  plan.ways.resize(static_cast<std::size_t>(found));
  return plan;
}

cublasStatus_t run(const Plan& plan, std::size_t way, const Operand& a, const Operand& b, void* result,
                   float beta) {
  const float one = 1;
  return cublasLtMatmul(at::cuda::getCurrentCUDABlasLtHandle(), plan.description, &one,
                        a.matrix.const_data_ptr(), plan.a, b.matrix.const_data_ptr(), plan.b, &beta, result,
                        plan.result, result, plan.result, &plan.ways[way].algo,
                        workbench().workspace.mutable_data_ptr(), kWorkspaceBytes,
                        at::cuda::getCurrentCUDAStream());
}

// What `work` takes in ms, after once without counting; none where it fails.  A
// round of laps is queued while the device is busy with something else, or the
// clock would show how fast the host is.
std::optional<float> time_of(const std::function<bool()>& work) {
  if (!work()) return std::nullopt;
  std::vector<float> rounds;
  for (int round = 0; round < kRounds; ++round) {
    at::cuda::CUDAEvent begin(cudaEventDefault), end(cudaEventDefault);
    for (int i = 0; i < kAhead; ++i) workbench().workspace.zero_();
    begin.record();
    for (int lap = 0; lap < kLaps; ++lap) {
      if (!work()) return std::nullopt;
    }
    end.record();
    end.synchronize();
    rounds.push_back(begin.elapsed_time(end) / kLaps);
  }
  std::nth_element(rounds.begin(), rounds.begin() + kRounds / 2, rounds.end());
  return rounds[kRounds / 2];
}

std::size_t fastest(const Plan& plan, const Operand& a, const Operand& b, const at::Tensor& result,
                    float beta) {
  // What adds to its result is timed on another one.
  const at::Tensor scratch =
      beta == 0 ? result : at::empty_strided(result.sizes(), result.strides(), result.options());
  std::optional<std::size_t> best;
  float best_time = 0;
  for (std::size_t way = 0; way < plan.ways.size(); ++way) {
    const auto time = time_of(
        [&] { return run(plan, way, a, b, scratch.mutable_data_ptr(), beta) == CUBLAS_STATUS_SUCCESS; });
    if (!time || (best && *time >= best_time)) continue;
    best = way;
    best_time = *time;
  }
  TORCH_CHECK(best, "none of cublasLt's ways to multiply these shapes works");
  return *best;
}

// result = a b, or += where `accumulate`.
void multiply(const Operand& a, const Operand& b, const at::Tensor& result, bool accumulate,
              const Epilogue& epilogue = {}) {
  Workbench& bench = workbench();
  if (!bench.workspace.defined()) {
    bench.workspace =
        at::empty({static_cast<std::int64_t>(kWorkspaceBytes)}, result.options().dtype(at::kByte));
  }
  const Key key{a.transposed,
                b.transposed,
                a.rows(),
                a.columns(),
                a.stride(),
                b.rows(),
                b.columns(),
                b.stride(),
                result.size(1),
                result.stride(0),
                accumulate,
                epilogue.kind,
                static_cast<std::int64_t>(result.scalar_type())};
  auto found = bench.plans.find(key);
  if (found == bench.plans.end()) found = bench.plans.emplace(key, make_plan(a, b, result, epilogue)).first;
  Plan& plan = found->second;
  point(plan, epilogue);
  const float beta = accumulate ? 1.0F : 0.0F;
  if (!plan.chosen) {
    plan.chosen = at::globalContext().deterministicAlgorithms() ? 0 : fastest(plan, a, b, result, beta);
  }
  TORCH_CUDABLAS_CHECK(run(plan, *plan.chosen, a, b, result.mutable_data_ptr(), beta));
}

}  // namespace

at::Tensor product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                   const at::Tensor& into) {
  const at::Tensor result = into.defined() ? into : at::empty({x.size(0), weight.size(0)}, x.options());
  Epilogue epilogue;
  if (bias.defined()) epilogue = {CUBLASLT_EPILOGUE_BIAS, bias.const_data_ptr(), nullptr};
  multiply({weight, true}, {x, false}, result, false, epilogue);
  return result;
}

GeluProduct gelu_product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  GeluProduct made{at::empty({x.size(0), weight.size(0)}, x.options()),
                   at::empty({x.size(0), weight.size(0)}, x.options())};
  multiply({weight, true}, {x, false}, made.activated, false,
           {CUBLASLT_EPILOGUE_GELU_AUX_BIAS, bias.const_data_ptr(), made.inner.mutable_data_ptr()});
  return made;
}

at::Tensor input_gradient(const at::Tensor& gradient, const at::Tensor& weight) {
  const at::Tensor result = at::empty({gradient.size(0), weight.size(1)}, gradient.options());
  multiply({weight, false}, {gradient, false}, result, false);
  return result;
}

at::Tensor gelu_input_gradient(const at::Tensor& gradient, const at::Tensor& weight, const at::Tensor& inner,
                               const at::Tensor& bias_sum) {
  const at::Tensor result = at::empty({gradient.size(0), weight.size(1)}, gradient.options());
  // With the product, or after it, where the bias' gradient falls out of the same pass.
  const auto make = [&](bool after, const at::Tensor& sum) {
    if (after) {
      multiply({weight, false}, {gradient, false}, result, false);
      gelu_gradient(result, inner, sum);
      return;
    }
    multiply({weight, false}, {gradient, false}, result, false,
             {CUBLASLT_EPILOGUE_DGELU, nullptr, inner.mutable_data_ptr()});
    if (sum.defined()) add_bias_gradient(sum, result);
  };
  bool after = false;
  if (!at::globalContext().deterministicAlgorithms()) {
    auto& known = workbench().gelu_after;
    const std::array<std::int64_t, 4> key{gradient.size(0), weight.size(0), weight.size(1),
                                          bias_sum.defined()};
    auto found = known.find(key);
    if (found == known.end()) {
      const at::Tensor sum = bias_sum.defined() ? at::empty_like(bias_sum) : at::Tensor();
      const auto time = [&](bool way) {
        return time_of([&] {
          make(way, sum);
          return true;
        });
      };
      const auto with = time(false), behind = time(true);
      found = known.emplace(key, behind < with).first;
    }
    after = found->second;
  }
  make(after, bias_sum);
  return result;
}

void add_weight_gradient(const at::Tensor& sum, const at::Tensor& gradient, const at::Tensor& x, bool fresh) {
  multiply({x, false}, {gradient, true}, sum, !fresh);
}

}  // namespace bulkhead::kernels
