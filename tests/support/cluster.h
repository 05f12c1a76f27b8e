// A whole run in one process and in simulated time: the real Coordinator, with
// scripted workers and hosts at the other ends of memory channels.
//
// What a test does to a process (crash it, silence it) is addressed by rank and
// plugin.  One thread.
#pragma once

#include <chrono>
#include <csignal>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "coordinator.h"
#include "fake_clock.h"
#include "fake_host.h"
#include "fake_worker.h"

namespace bulkhead {

struct ClusterOptions {
  std::int64_t ranks = 2;
  std::int64_t max_restarts = 0;
  std::vector<PluginConfig> plugins{};
};

inline PluginConfig plugin_named(const std::string& name, const std::string& scope = "rank") {
  PluginConfig plugin;
  plugin.name = name;
  plugin.scope = scope;
  plugin.standby = false;
  return plugin;
}

class Cluster {
 public:
  static constexpr const char* kSecret = "the run's secret";

  explicit Cluster(ClusterOptions options) : worker_script(static_cast<std::size_t>(options.ranks)) {
    CoordinatorOptions coordinator;
    coordinator.config.name = "run";
    coordinator.config.plugins = options.plugins;
    coordinator.ranks = options.ranks;
    coordinator.max_restarts = options.max_restarts;
    coordinator.secret = kSecret;
    config_ = coordinator.config;
    host_script.resize(options.plugins.size());
    the_coordinator_ = std::make_unique<Coordinator>(loop_, std::move(coordinator), hooks());
  }

  // Before start(), or for later incarnations.
  std::vector<FakeWorkerScript> worker_script;  // by rank
  std::vector<FakeHostScript> host_script;      // by plugin
  std::optional<std::string> checkpoint;        // the newest complete one
  std::string log_tail;
  std::string refused_change;  // not empty: the sentence that refuses what configure() returned

  // What came out.
  std::vector<Event> events;
  std::vector<Value> metrics;
  std::vector<ProcessKey> launched;
  std::vector<ProcessKey> killed;      // by the coordinator
  std::vector<std::string> cut_backs;  // checkpoints that the ranks went back to
  Cpus host_cpus;                      // where hosts were told to run, last
  Value run_map = Value::object();     // the run's keys, as plugins have configured them
  bool ended = false;

  void start() {
    coordinator().start();
    settle();
  }
  Coordinator& coordinator() { return *the_coordinator_; }
  EventLoop& loop() { return loop_; }

  // Until nothing happens any more at this moment.
  void settle() {
    for (int turn = 0; loop_.run_ready(); ++turn) CHECK(turn < 10'000, "the run never comes to rest");
  }

  // Time passes, in pieces in which every live rank sends a heartbeat.
  void advance(Duration by) {
    constexpr Duration kPiece = std::chrono::milliseconds(50);
    for (Duration done{}; done < by; done += kPiece) {
      clock_.advance(std::min(kPiece, by - done));
      for (auto& [key, worker] : workers_) worker->beat();
      settle();
    }
  }

  // The live incarnation; of a host the one that serves.
  FakeWorker& worker(std::int64_t rank) { return *serving(workers_, Role::kWorker, 0, rank); }
  FakeHost& host(std::int64_t plugin, std::int64_t rank) {
    return *serving(hosts_, Role::kHost, plugin, rank);
  }
  // Of any incarnation.
  FakeHost& process(const ProcessKey& key) { return *hosts_.at(key); }
  bool has_host(std::int64_t plugin, std::int64_t rank) {
    return find(hosts_, Role::kHost, plugin, rank) != hosts_.end();
  }

  void crash_worker(std::int64_t rank, int signal = SIGKILL) { end(worker(rank).key(), died_by(signal)); }
  void crash_host(std::int64_t plugin, std::int64_t rank, int signal = SIGSEGV) {
    end(host(plugin, rank).key(), died_by(signal));
  }
  void crash(const ProcessKey& key) { end(key, died_by(SIGKILL)); }
  void exit_host(std::int64_t plugin, std::int64_t rank, int code) {
    end(host(plugin, rank).key(), {.exit_code = code, .signal = {}});
  }

  std::size_t live_processes() const { return workers_.size() + hosts_.size(); }

  std::vector<Event> events_named(const std::string& name) const {
    std::vector<Event> found;
    std::copy_if(events.begin(), events.end(), std::back_inserter(found),
                 [&](const Event& event) { return event.event == name; });
    return found;
  }

  // A connection that is nobody's.
  std::unique_ptr<Channel> stranger() {
    auto [ours, theirs] = memory_channels(loop_, loop_);
    coordinator().accept(std::move(ours));
    return std::move(theirs);
  }

 private:
  static ProcessEnd died_by(int signal) { return {.exit_code = {}, .signal = signal}; }

  CoordinatorHooks hooks() {
    CoordinatorHooks hooks;
    hooks.launch = [this](const ProcessKey& key) { return launch(key); };
    hooks.end_now = [this](const ProcessKey& key) {
      killed.push_back(key);
      loop_.post([this, key] { end_silently(key, died_by(SIGKILL)); });
    };
    hooks.keep_hosts_to = [this](const Cpus& cpus) { host_cpus = cpus; };
    hooks.log_tail = [this](const ProcessKey&) { return log_tail; };
    hooks.endpoint = [](const std::string& name) { return "memory://" + name; };
    hooks.place_of = [](const std::string& key) { return "run.yaml:" + key; };
    hooks.run_map = [this] { return run_map; };
    hooks.reconfigure = [this](PluginId, const Value& changes) { return reconfigure(changes); };
    hooks.newest_checkpoint = [this] { return checkpoint; };
    hooks.cut_back = [this](const std::string& where) { cut_backs.push_back(where); };
    hooks.event = [this](const Event& event) { events.push_back(event); };
    hooks.metrics = [this](const Value& line) { metrics.push_back(line); };
    hooks.ended = [this] { ended = true; };
    return hooks;
  }

  // Keys are dotted; of the configuration itself only the seed and the rate
  // follow.
  Result<RunConfig> reconfigure(const Value& changes) {
    if (!refused_change.empty()) return Error{ErrorCode::kMismatch, refused_change};
    run_map.update(changes);
    RunConfig config = config_;
    config.optimizer.lr = run_map.value("optimizer.lr", config.optimizer.lr);
    config.train.seed = run_map.value("train.seed", config.train.seed);
    return config;
  }

  Result<std::int64_t> launch(const ProcessKey& key) {
    launched.push_back(key);
    auto [ours, theirs] = memory_channels(loop_, loop_);
    const auto exit = [this, key](int code) {
      loop_.post([this, key, code] { end_silently(key, {.exit_code = code, .signal = {}}); });
    };
    if (key.role == Role::kWorker) {
      auto worker = std::make_unique<FakeWorker>(key, std::move(theirs),
                                                 worker_script[static_cast<std::size_t>(key.rank)], exit);
      worker->greet(kSecret);
      workers_[key] = std::move(worker);
    } else {
      auto host = std::make_unique<FakeHost>(key, std::move(theirs),
                                             host_script[static_cast<std::size_t>(key.plugin.value)], exit);
      host->greet(kSecret);
      hosts_[key] = std::move(host);
    }
    coordinator().accept(std::move(ours));
    return static_cast<std::int64_t>(100 + launched.size());
  }

  // As the kernel does it: the process is gone, then the coordinator hears it.
  void end(ProcessKey key, const ProcessEnd& how) {  // by value: it may be the ended process's own
    end_silently(key, how);
    settle();
  }
  void end_silently(ProcessKey key, const ProcessEnd& how) {
    if (workers_.erase(key) + hosts_.erase(key) > 0) coordinator().process_ended(key, how);
  }

  template <class Map>
  static typename Map::iterator find(Map& map, Role role, std::int64_t plugin, std::int64_t rank) {
    return std::find_if(map.begin(), map.end(), [&](const auto& entry) {
      const ProcessKey& key = entry.first;
      return key.role == role && key.plugin.value == plugin && key.rank == rank;
    });
  }
  template <class Map>
  static typename Map::mapped_type& serving(Map& map, Role role, std::int64_t plugin, std::int64_t rank) {
    const auto found = find(map, role, plugin, rank);
    CHECK(found != map.end(), "no such process lives");
    return found->second;
  }

  RunConfig config_;
  FakeClock clock_;
  EventLoop loop_{clock_};
  std::map<ProcessKey, std::unique_ptr<FakeWorker>> workers_;
  std::map<ProcessKey, std::unique_ptr<FakeHost>> hosts_;
  std::unique_ptr<Coordinator> the_coordinator_;
};

}  // namespace bulkhead
