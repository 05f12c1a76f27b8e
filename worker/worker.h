// A worker process: one rank.  The loop thread (this object) talks to the
// coordinator and the hosts; the compute thread trains.
//
// Reports and obeys; decides nothing about processes.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "cpu_watch.h"
#include "plugin_client.h"
#include "protocol/channel.h"
#include "protocol/cpus.h"
#include "protocol/event_loop.h"
#include "protocol/messages.h"

namespace bulkhead {

class TrainingLoop;

class Worker {
 public:
  // What the process is told by its environment (protocol/README.md).
  struct Identity {
    std::string endpoint;
    std::string secret;
    Generation generation;
    std::int64_t rank = 0;
    std::string master_address = "127.0.0.1";
    std::uint16_t master_port = 0;  // 0 = any
  };

  explicit Worker(Identity identity);
  ~Worker();

  // Until the coordinator lets it go.  The process's exit status.
  int run();

 private:
  enum class State { kGreeting, kWaiting, kTraining, kReported };

  // Loop thread.
  void on_message(Message message);
  void on_closed(const Error& error);
  void start(StartWorker start);
  void tell(Message message);
  void beat();
  void step_aside(const std::vector<std::int64_t>& computing);
  void interrupt(std::string reason);
  void watch_signals();
  void finish(int exit_status);

  // Compute thread.
  void compute(StartWorker start);
  // worker_train.cpp
  class OpenPlugins;
  struct Ground;
  WorkerDone train(const StartWorker& start);
  std::optional<WorkerDone> meet(const StartWorker& start, Ground& ground);
  WorkerDone run_loop(TrainingLoop& training, std::vector<PendingBatch> batches);
  WorkerDone lost(const Error& error);
  void tell_event(std::string event, Value fields);
  void report(WorkerDone done);
  std::optional<std::pair<std::string, std::int64_t>> await_store();

  Identity identity_;
  EventLoop loop_;
  EventLoop compute_loop_;
  State state_ = State::kGreeting;
  std::unique_ptr<Channel> coordinator_;
  EventLoop::Handle heartbeat_;
  EventLoop::Handle patience_;
  int signals_ = -1;  // a signalfd; the process's end closes it
  EventLoop::Handle signal_watch_;
  int exit_status_ = 1;

  // For the heartbeat; written by the compute thread.
  std::atomic<std::int64_t> step_{0};
  std::atomic<double> waited_seconds_{0};
  CpuWatch cpu_watch_;
  const Cpus all_cpus_ = allowed_cpus();

  // Handed over by post(): the loop thread's view of the compute thread's objects.
  PluginClient* plugins_ = nullptr;
  std::vector<AttachHost> early_attaches_;
  std::vector<HostLost> early_losses_;
  std::vector<GatherWanted> early_wanted_;

  // Compute thread.
  TrainingLoop* training_ = nullptr;
  std::optional<std::string> stop_asked_;
  std::optional<StoreReady> store_;
  std::thread thread_;
};

}  // namespace bulkhead
