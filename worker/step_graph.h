// A part of a training step on a GPU, recorded once and replayed: one launch
// instead of hundreds.
//
// What is recorded reads and writes the same memory every time, waits for
// nothing, and decides nothing on the host.  The compute thread.
#pragma once

#include <functional>
#include <memory>

#include "protocol/result.h"

namespace bulkhead {

class StepGraph {
 public:
  StepGraph();
  StepGraph(StepGraph&&) noexcept;
  StepGraph& operator=(StepGraph&&) noexcept;
  ~StepGraph();

  // Whether this build can.
  static bool is_possible();

  // Takes down what `work` queues on the current device; none of it runs.  What
  // was recorded before is forgotten, also when this fails.
  Status record(const std::function<Status()>& work);

  // Queues what was recorded, on the current stream.
  Status replay();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace bulkhead
