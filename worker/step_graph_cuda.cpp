#include <utility>

#include <ATen/cuda/CUDAContext.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>

#include "step_graph.h"
#include "torch_error.h"

namespace bulkhead {

struct StepGraph::State {
  at::cuda::CUDAGraph graph;
};

StepGraph::StepGraph() = default;
StepGraph::StepGraph(StepGraph&&) noexcept = default;
StepGraph& StepGraph::operator=(StepGraph&&) noexcept = default;
StepGraph::~StepGraph() = default;

bool StepGraph::is_possible() { return true; }

Status StepGraph::record(const std::function<Status()>& work) {
  state_.reset();
  auto state = std::make_unique<State>();
  const Status recorded = catching("recording a step", ErrorCode::kFailed, [&]() -> Status {
    // A recording has memory of its own; what eager steps have left over would lie idle.
    at::cuda::getCurrentCUDAStream().synchronize();
    c10::cuda::CUDACachingAllocator::emptyCache();
    const c10::cuda::CUDAStreamGuard aside(at::cuda::getStreamFromPool());
    // Per thread: the loop thread and autograd's others go on as they are.
    state->graph.capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
    Status done = catching("recording a step", ErrorCode::kFailed, work);
    state->graph.capture_end();
    return done;
  });
  if (recorded) state_ = std::move(state);
  return recorded;
}

Status StepGraph::replay() {
  CHECK(state_ != nullptr);
  return catching("replaying a step", ErrorCode::kFailed, [&] { state_->graph.replay(); });
}

}  // namespace bulkhead
