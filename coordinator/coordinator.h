// The state machine of a run: who is waited for, who talks to whom, what a
// death means, and how the run ended.
//
// Owns no process, socket or file: it is given channels and functions, so that
// tests run it whole, in simulated time.  It is never on the data path.  Used
// on the loop's thread; it must not be destroyed from within one of its hooks.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cpu_room.h"
#include "gather_hub.h"
#include "greeter.h"
#include "host_supervisor.h"
#include "process.h"
#include "progress_display.h"
#include "protocol/channel.h"
#include "protocol/event_loop.h"
#include "protocol/run_config.h"
#include "rank_policy.h"
#include "run_event.h"
#include "run_records.h"
#include "run_summary.h"
#include "worker_supervisor.h"

namespace bulkhead {

struct CoordinatorOptions {
  RunConfig config;
  std::int64_t ranks = 1;
  std::int64_t max_restarts = 0;                              // of all ranks together
  std::chrono::nanoseconds grace = std::chrono::seconds(30);  // stop → SIGKILL of the ranks
  std::string secret;                                         // what each hello must bring
  std::string run_dir;                                        // absolute
  std::string resume;                                         // checkpoint directory; empty = fresh
  std::int64_t resumed_from = 0;                              // its step
};

// What the coordinator needs done.  None may call back into it but launch's
// and end_now's later process_ended().
struct CoordinatorHooks {
  std::function<Result<std::int64_t>(const ProcessKey&)> launch;  // its pid, or 0: known later
  std::function<void(const ProcessKey&)> end_now;           // SIGKILL to its group; process_ended() follows
  std::function<void(const Cpus&)> keep_hosts_to;           // where hosts run from now on
  std::function<std::string(const ProcessKey&)> log_tail;   // its last log lines; may be empty
  std::function<std::string(const std::string&)> endpoint;  // of a new data connection, from a short name
  std::function<std::string(const std::string&)> place_of;  // "run.yaml:12" of a dotted key
  std::function<Value()> run_map;                           // the run as configured so far, as in run.yaml
  // The run with what that plugin's configure() returned; an error is a
  // refusal's whole sentence.
  std::function<Result<RunConfig>(PluginId, const Value& changes)> reconfigure;
  std::function<std::optional<std::string>()> newest_checkpoint;  // the newest complete one's directory
  std::function<void(const std::string&)> cut_back;  // the ranks start again from there; "": from nothing
  std::function<void(const Event&)> event;
  std::function<void(const Value&)> metrics;  // a line of metrics.jsonl
  std::function<void()> ended;                // once, when no process is left
};

class Coordinator {
 public:
  Coordinator(EventLoop& loop, CoordinatorOptions options, CoordinatorHooks hooks);

  // Launches everything.
  void start();
  // A process has connected.
  void accept(std::unique_ptr<Channel> channel) { greeter_.accept(std::move(channel)); }
  // A process that was launched has ended.
  void process_ended(const ProcessKey& key, const ProcessEnd& end);
  // The first time: in order, with grace (of which a stop that the ranks agreed
  // on is a part).  After that: at once.
  void request_stop(const std::string& reason);

  // Final once `ended` was called.
  const RunOutcome& outcome() const { return outcome_; }
  Summary summary() const;
  // Rank 0's result, for what the summary does not hold (its text sample).
  Value result() const;
  std::vector<PluginProgress> plugin_progress() const;
  // "starting", "restarting", "stopping", empty while training.
  std::string phase_name() const;
  // Messages of stale generations, which were dropped.
  std::int64_t stale_messages() const { return stale_; }

 private:
  enum class Phase {
    kIdle,
    kStarting,    // until every rank has greeted, every host has loaded and the run is configured
    kRunning,     // the ranks have been told to start
    kRestarting,  // until every rank of the old generation is gone
    kStopping,    // told to stop, or the grace runs
    kEnding,      // the outcome is known; until no process is left
    kEnded,
  };

  // coordinator.cpp: the opening of a generation of the ranks
  void make_supervisors();
  Facts facts_of(std::int64_t rank) const;
  std::string refusal_of(const Hello& hello);
  void admit(std::unique_ptr<Peer> peer, const Hello& hello);
  void launch_workers();
  void maybe_begin();
  bool check_loaded();
  void begin();
  void record_resume();
  void attach(HostSupervisor& host);
  std::vector<PluginRoute> routes_of(std::int64_t rank) const;
  std::vector<std::string> relays() const;
  static bool serves_every_rank(const HostSupervisor& host);
  void tick();
  void place_hosts();

  // coordinator_configure.cpp: plugins' changes to the run
  bool configure_plugins();
  bool ask_to_configure(PluginId plugin);
  bool take_changes(PluginId plugin);
  void host_configured(HostSupervisor& host, const Value& changes);

  // coordinator_messages.cpp: what workers and hosts say
  void worker_message(WorkerSupervisor& worker, Message message);
  void worker_done(WorkerSupervisor& worker, WorkerDone done);
  void store_ready(const WorkerSupervisor& worker, const StoreReady& store);
  void metrics_line(const MetricsLine& line);
  void event_line(const WorkerSupervisor& worker, const EventLine& line);
  void gather_part(WorkerSupervisor& worker, GatherPart part);
  void send_gathers(const GatherHub::Words& words);
  void host_loaded(HostSupervisor& host);
  void host_refused(HostSupervisor& host, const std::string& key, const std::string& sentence);
  void host_lost(HostSupervisor& host, const std::string& reason, bool restarting);
  void host_gave_up(HostSupervisor& host, const std::string& reason);

  // coordinator_end.cpp: failures, restarts and the end
  void worker_ended(WorkerSupervisor& worker);
  void rank_failed(RankFailure failure);
  bool has_agreed_failure() const;
  void settle_failures();
  void restart_ranks(const RankDecision& decision);
  void stop_ranks(RunOutcome outcome);
  void begin_stop(RunOutcome outcome);
  void finish_if_all_done();
  void end(RunOutcome outcome);
  void check_gone();

  void record(Event event);
  // The host of that plugin whose home is that rank: rank scope has one for
  // each rank, the other scopes have one, with rank 0.
  HostSupervisor* host_at(PluginId plugin, std::int64_t rank);
  WorkerSupervisor* worker_at(std::int64_t rank);
  bool all_workers(const std::function<bool(const WorkerSupervisor&)>& holds) const;

  EventLoop& loop_;
  CoordinatorOptions options_;
  CoordinatorHooks hooks_;
  std::int64_t stale_ = 0;
  HostSupervisor::Services host_services_;
  WorkerSupervisor::Services worker_services_;
  std::vector<std::unique_ptr<WorkerSupervisor>> workers_;  // by rank
  std::vector<std::unique_ptr<HostSupervisor>> hosts_;      // by plugin, then rank
  Greeter greeter_;
  GatherHub gathers_;
  CpuRoom cpu_room_{allowed_cpus()};
  Cpus host_cpus_;  // as told last

  Phase phase_ = Phase::kIdle;
  Generation worker_generation_;
  std::int64_t rank_restarts_ = 0;
  std::string resume_;                           // what this generation of the ranks starts from
  std::set<PluginId> given_up_;                  // on all ranks from the next generation on
  std::map<PluginId, Value> configure_inputs_;   // what its configure() gets, in every incarnation
  std::map<PluginId, Value> configure_answers_;  // of the first incarnation on the lowest rank
  std::set<PluginId> configured_;                // whose changes are in the configuration
  std::vector<RankFailure> failures_;            // of this generation
  bool stopping_by_ranks_ = false;               // they agreed on it: nobody has asked us yet
  std::optional<RunOutcome> stopping_;           // how a run that is being stopped will have ended
  TimePoint failed_at_;
  RunOutcome outcome_;
  LastSeen seen_;

  EventLoop::Handle tick_timer_;
  EventLoop::Handle settle_timer_;
  EventLoop::Handle grace_timer_;
};

}  // namespace bulkhead
