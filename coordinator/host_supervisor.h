// One plugin process of the run over all its incarnations: from launch over
// hello, load and attach to ready, and again after a death while the restart
// policy allows it.
//
// While an incarnation serves, the next one is made to stand by: started and
// greeted, with nothing loaded, so that a death costs no start of a process.
//
// It decides about its own process only; what a death or a refusal means for
// the run is the coordinator's, which it tells.  Starts nothing itself:
// processes are its owner's functions.  Used on the loop's thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "error_kinds.h"
#include "peer.h"
#include "process.h"
#include "protocol/event_loop.h"
#include "protocol/messages.h"
#include "restart_policy.h"
#include "run_event.h"
#include "run_records.h"

namespace bulkhead {

class HostSupervisor {
 public:
  enum class State {
    kIdle,         // not started yet
    kStarting,     // launched, hello awaited
    kLoading,      // greeted, importing and constructing
    kLoaded,       // no worker attached
    kConfiguring,  // in its configure()
    kOpening,      // attached: setup, state, replay
    kReady,        // serving
    kWaiting,      // dead, the back-off runs
    kRenewing,     // being ended to be started afresh, at no charge
    kGivenUp,      // will not be started again
    kStopping,     // told to stop
    kStopped,
  };

  // What it needs done; outlives it.
  struct Services {
    EventLoop& loop;
    std::function<Result<std::int64_t>(const ProcessKey&)> launch;  // its pid, or 0: known later
    std::function<void(const ProcessKey&)> end_now;                 // SIGKILL to its group; its end follows
    std::function<void(Event)> record;                              // fills in a time of 0
    std::int64_t& stale;                                            // counts stale messages

    // What it tells.  `lost`: an incarnation that the worker knows of, or the
    // last one, is gone.
    std::function<void(HostSupervisor&)> loaded;
    std::function<void(HostSupervisor&, const Value& changes)> configured;
    std::function<void(HostSupervisor&, const std::string& key, const std::string& sentence)> refused;
    std::function<void(HostSupervisor&, const std::string& reason, bool restarting)> lost;
    std::function<void(HostSupervisor&, const std::string& reason)> gave_up;
  };

  HostSupervisor(PluginId plugin, const PluginConfig& config, Facts facts, Services& services);

  // Launches the next incarnation.
  void start();
  // Whether a hello of that generation is what it waits for.
  bool awaits(Generation generation) const {
    if (standby_ == Standby::kStarting && generation == newest_) return true;
    return state_ == State::kStarting && generation == generation_;
  }
  // Takes the connection of the incarnation that it waits for.
  void greeted(std::unique_ptr<Peer> peer, const Hello& hello);
  // Has it called configure() with the run as configured so far; `configured`
  // follows, or a refusal where it raises the first time.  Only in kLoaded.
  void configure(const Value& config);
  // A worker waits at `endpoint`.  Only in kLoaded.
  void attach(const std::string& endpoint, Generation worker_generation);

  // What its worker says of it; other generations than the current are stale.
  void ready(Generation generation);
  void fault(const HostFault& fault);
  // Also of the incarnation that has just died.
  void post(const HostPost& post);

  // The ranks are restarted.  With a checkpoint an incarnation that was set up
  // waits for the next attach; any other that got beyond its constructor is
  // started afresh.
  void worker_gone(bool checkpoint);
  // Its process has ended.
  void ended(Generation generation, const ProcessEnd& end);
  // The plugin was given up on another rank: this one goes on until the ranks
  // agree on a step, and is reported as disabled.
  void mark_disabled() { disabled_ = true; }
  // Ends it for good: the plugin runs on no rank any more.
  void retire();
  // Ends it in order, then by force.
  void stop();
  void end_now();

  PluginId plugin() const { return plugin_; }
  std::int64_t rank() const { return facts_.rank; }
  const PluginConfig& config() const { return config_; }
  const PluginTraits& traits() const { return traits_; }
  State state() const { return state_; }
  Generation generation() const { return generation_; }
  bool alive() const { return process_ || standby_ != Standby::kNone; }
  // Loaded and waiting, or never to come.
  bool settled() const { return state_ == State::kLoaded || state_ == State::kGivenUp; }
  // This incarnation has a configure() that has not been called yet.
  bool needs_configure() const {
    return state_ == State::kLoaded && !configured_ && traits_.has("configure");
  }
  // This incarnation has been set up for an earlier worker.
  bool set_up() const { return set_up_; }
  std::int64_t starts() const { return starts_; }
  const std::vector<CrashSummary>& crashes() const { return crashes_; }
  // What its hooks raised, as its worker reported it.
  ErrorKinds& errors() { return errors_; }
  const ErrorKinds& errors() const { return errors_; }
  // starting | ready | restarting | disabled, as before any stop.
  std::string state_name() const;

 private:
  enum class Standby { kNone, kStarting, kGreeted };

  void launch();
  void listen();
  void load();
  void arm_standby();
  void prepare_standby();
  void listen_to_standby();
  void end_standby();
  void standby_ended();
  void on_message(const Message& message);
  void on_closed(const Error& why);
  void load_failed(const LoadFailed& failed);
  void configure_answered(const Configured& answer);
  bool may_still_speak(const ProcessEnd& end) const;
  void died(const ProcessEnd& end);
  void record_crash(const ProcessEnd& end, bool attached);
  void restart_or_give_up(bool attached);
  void condemn(const std::string& verdict);
  void arm_opening(Duration limit);
  void opening_expired();
  void write_crash();
  ProcessKey key() const { return {Role::kHost, plugin_, facts_.rank, generation_}; }
  ProcessKey standby_key() const { return {Role::kHost, plugin_, facts_.rank, newest_}; }
  Event event(std::string name) const;

  PluginId plugin_;
  PluginConfig config_;
  Facts facts_;
  Services& services_;
  RestartPolicy policy_;

  State state_ = State::kIdle;
  std::string name_before_stop_;
  Generation generation_;              // 0 before the first start
  Generation newest_;                  // … or that of a standby: none is given twice
  std::int64_t starts_ = 0;            // of those that were to serve
  bool process_ = false;               // from launch to its reported end
  std::optional<ProcessEnd> unheard_;  // its end, while its last words may still be on the way
  bool configured_ = false;
  bool ever_configured_ = false;
  bool set_up_ = false;
  bool ever_ready_ = false;
  bool disabled_ = false;
  bool restarting_ = false;  // since a death, until it is ready
  TimePoint ready_at_;
  int quick_deaths_ = 0;  // in a row, of those that hardly served
  TimePoint since_;       // launch, or the death that led to it, or the attach
  std::string verdict_;   // why we ended it
  PluginTraits traits_;
  std::unique_ptr<Peer> peer_;
  Standby standby_ = Standby::kNone;  // of generation newest_, from launch to its reported end
  std::unique_ptr<Peer> standby_peer_;
  int standby_deaths_ = 0;

  std::vector<TimePoint> death_times_;
  std::vector<CrashSummary> crashes_;
  ErrorKinds errors_;
  std::optional<Generation> unposted_;  // the newest crash waits for its HostPost
  bool told_hang_ = false;              // its event is written already

  EventLoop::Handle opening_timer_;
  EventLoop::Handle restart_timer_;
  EventLoop::Handle post_timer_;
  EventLoop::Handle stop_timer_;
  EventLoop::Handle standby_timer_;
};

}  // namespace bulkhead
