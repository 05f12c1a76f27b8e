// The processes of a run that are alive, by key: the coordinator's hands.
//
// Starts and ends what it is told to and reports each end once, after its
// whole group is gone; decides nothing.  Used on the loop's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "child_process.h"
#include "child_process_guard.h"
#include "launch_plan.h"
#include "process.h"
#include "protocol/cpus.h"

namespace bulkhead {

class ProcessTable {
 public:
  // `guard` outlives it.
  ProcessTable(EventLoop& loop, LaunchPlan plan, ChildProcessGuard& guard,
               std::function<void(const ProcessKey&, const ProcessEnd&)> on_end);
  // Ends whatever is left.
  ~ProcessTable();
  ProcessTable(const ProcessTable&) = delete;
  ProcessTable& operator=(const ProcessTable&) = delete;

  // Its pid.
  Result<std::int64_t> launch(const ProcessKey& key);
  void end_now(const ProcessKey& key);
  // Where hosts run from now on, those whose `affinity` is auto.
  void keep_hosts_to(const Cpus& cpus);
  // The last lines of its log as one line; empty where there is none.
  std::string log_tail(const ProcessKey& key) const;

 private:
  void ended(const ProcessKey& key, const ProcessEnd& end);
  int end_strays_now() const;
  void place(const ProcessKey& key, const ChildProcess& child) const;
  void sweep();

  EventLoop& loop_;
  LaunchPlan plan_;
  ChildProcessGuard& guard_;
  std::function<void(const ProcessKey&, const ProcessEnd&)> on_end_;
  std::map<ProcessKey, ChildProcess> children_;
  Cpus host_cpus_;  // empty: any
  EventLoop::Handle sweep_timer_;
};

}  // namespace bulkhead
