// A build without CUDA.
#include "step_graph.h"

namespace bulkhead {

struct StepGraph::State {};

StepGraph::StepGraph() = default;
StepGraph::StepGraph(StepGraph&&) noexcept = default;
StepGraph& StepGraph::operator=(StepGraph&&) noexcept = default;
StepGraph::~StepGraph() = default;

bool StepGraph::is_possible() { return false; }
Status StepGraph::record(const std::function<Status()>&) {
  return Error{ErrorCode::kUnavailable, "this build has no CUDA"};
}
Status StepGraph::replay() { return Error{ErrorCode::kUnavailable, "this build has no CUDA"}; }

}  // namespace bulkhead
