// The processes of a run that are alive, by key: the coordinator's hands.  A
// Python plugin's hosts are forked by a zygote of its own where that works.
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
#include "zygote.h"

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

  // What a zygote cannot fork, now or later, is started as any program is; what
  // cannot be started at all ends with exit status 127.
  // Its pid, or 0 while a zygote is at it.
  Result<std::int64_t> launch(const ProcessKey& key);
  void end_now(const ProcessKey& key);
  // Where hosts run from now on, those whose `affinity` is auto.
  void keep_hosts_to(const Cpus& cpus);
  // The last lines of its log as one line; empty where there is none.
  std::string log_tail(const ProcessKey& key) const;

 private:
  Result<std::int64_t> start(const ProcessKey& key);
  Zygote* zygote_of(PluginId plugin);
  void born(const ProcessKey& key, const Result<pid_t>& pid);
  std::int64_t keep(const ProcessKey& key, ChildProcess child);
  void ended(const ProcessKey& key, const ProcessEnd& end);
  int end_strays_now() const;
  void place(const ProcessKey& key, const ChildProcess& child) const;
  void sweep();

  EventLoop& loop_;
  LaunchPlan plan_;
  ChildProcessGuard& guard_;
  std::function<void(const ProcessKey&, const ProcessEnd&)> on_end_;
  std::map<ProcessKey, ChildProcess> children_;
  std::map<PluginId, std::unique_ptr<Zygote>> zygotes_;  // null: it could not be started
  std::map<ProcessKey, bool> unborn_;                    // asked of a zygote; whether to end them at once
  Cpus host_cpus_;                                       // empty: any
  EventLoop::Handle sweep_timer_;
};

}  // namespace bulkhead
