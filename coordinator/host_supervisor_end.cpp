// The end of an incarnation, and what follows from it.
#include <string>
#include <utility>

#include "host_supervisor.h"
#include "protocol/log.h"

namespace bulkhead {
namespace {

using namespace std::chrono_literals;
using State = HostSupervisor::State;

constexpr Duration kPostWait = 1s;      // HostLost → HostPost
constexpr Duration kStopWait = 1s;      // Stop → SIGKILL
constexpr Duration kLastWords = 100ms;  // the end of a refused host → its load_failed

// "hang", "SIGSEGV", "exit 0".
std::string describe(const CrashSummary& crash) {
  if (crash.reason) return *crash.reason;
  return crash.signal ? *crash.signal : "exit " + std::to_string(crash.exit.value_or(0));
}

}  // namespace

// Ends the process; its end is then recorded with this reason.
void HostSupervisor::condemn(const std::string& verdict) {
  if (!verdict_.empty()) return;
  verdict_ = verdict;
  spdlog::warn("host {}-{} generation {}: ending it: {}", config_.name, rank(), generation_.value, verdict);
  services_.end_now(key());
}

void HostSupervisor::fault(const HostFault& fault) {
  const bool attached = state_ == State::kOpening || state_ == State::kReady;
  if (fault.host_generation != generation_ || !attached) {
    ++services_.stale;
    return;
  }
  if (fault.kind == "refused" && !ever_ready_) return services_.refused(*this, "", fault.reason);
  if (fault.kind == "hang" && verdict_.empty()) {
    Event hang = event("hang");
    if (!fault.hook.empty()) hang.hook = fault.hook;
    if (fault.step >= 0) hang.step = fault.step;
    hang.seconds = fault.seconds;
    hang.reason = fault.reason;
    services_.record(std::move(hang));
    told_hang_ = true;
  }
  condemn(fault.kind == "hang" ? fault.kind : fault.kind + ": " + fault.reason);
}

void HostSupervisor::ended(Generation generation, const ProcessEnd& end) {
  if (standby_ != Standby::kNone && generation == newest_) return standby_ended();
  if (generation != generation_ || !process_) return;
  process_ = false;
  opening_timer_.reset();
  if (may_still_speak(end)) {
    unheard_ = end;
    restart_timer_ =
        services_.loop.call_after(kLastWords, [this] { died(*std::exchange(unheard_, std::nullopt)); });
    return;
  }
  peer_.reset();
  stop_timer_.reset();
  switch (state_) {
    case State::kStopping:
      state_ = State::kStopped;
      return;
    case State::kGivenUp:
      return;
    case State::kRenewing:
      return start();
    default:
      return died(end);
  }
}

// The descriptor that tells of its end may be faster than its socket.
bool HostSupervisor::may_still_speak(const ProcessEnd& end) const {
  return state_ == State::kLoading && end.exit_code == 2 && verdict_.empty();
}

void HostSupervisor::died(const ProcessEnd& end) {
  peer_.reset();
  const bool attached = state_ == State::kOpening || state_ == State::kReady;
  const bool served = state_ == State::kReady && services_.loop.now() - ready_at_ >= RestartPolicy::kServes;
  quick_deaths_ = served ? 0 : quick_deaths_ + 1;
  death_times_.push_back(services_.loop.now());
  record_crash(end, attached);
  since_ = services_.loop.now();
  restart_or_give_up(attached);
}

void HostSupervisor::record_crash(const ProcessEnd& end, bool attached) {
  write_crash();  // an older one still without its post
  CrashSummary crash;
  crash.time = services_.loop.clock().wall_seconds();
  if (!verdict_.empty()) {
    crash.reason = verdict_;
  } else if (end.signal) {
    crash.signal = signal_name(*end.signal);
  } else {
    crash.exit = end.exit_code.value_or(0);
  }
  if (state_ == State::kLoading) crash.hook = "__init__";
  if (state_ == State::kConfiguring) crash.hook = "configure";
  crashes_.push_back(std::move(crash));
  unposted_ = generation_;
  if (!attached) return write_crash();
  post_timer_ = services_.loop.call_after(kPostWait, [this] { write_crash(); });
}

void HostSupervisor::restart_or_give_up(bool attached) {
  const std::string reason = describe(crashes_.back());
  const RestartDecision decision = policy_.next(death_times_, services_.loop.now(), quick_deaths_);
  spdlog::warn("host {}-{} generation {}: {} ({})", config_.name, rank(), generation_.value, reason,
               decision.reason);
  if (!decision.restart) {
    state_ = State::kGivenUp;
    end_standby();
    services_.lost(*this, reason, false);
    return services_.gave_up(*this, reason + "; " + decision.reason);
  }
  state_ = State::kWaiting;
  restarting_ = true;
  if (attached) services_.lost(*this, reason, true);
  if (decision.delay == Duration::zero()) return start();
  restart_timer_ = services_.loop.call_after(decision.delay, [this] { start(); });
}

void HostSupervisor::post(const HostPost& post) {
  if (!unposted_ || post.host_generation != *unposted_) {
    ++services_.stale;
    return;
  }
  CrashSummary& crash = crashes_.back();
  if (!post.hook.empty()) crash.hook = post.hook;
  if (post.step >= 0) crash.step = post.step;
  if (!post.batch.empty()) crash.batch = post.batch;
  write_crash();
}

void HostSupervisor::write_crash() {
  post_timer_.reset();
  if (!unposted_) return;
  const CrashSummary& crash = crashes_.back();
  Event event = this->event("crash");
  event.time = crash.time;
  event.generation = std::exchange(unposted_, std::nullopt)->value;
  event.hook = crash.hook;
  event.step = crash.step;
  event.reason = describe(crash);
  if (crash.batch) event.more["batch"] = *crash.batch;
  if (!std::exchange(told_hang_, false)) services_.record(std::move(event));
}

// ----- The run around it -----

void HostSupervisor::worker_gone(bool checkpoint) {
  write_crash();
  const bool attached = state_ == State::kOpening || state_ == State::kReady;
  if (!attached && !(state_ == State::kLoaded && set_up_)) return;
  opening_timer_.reset();
  if (!verdict_.empty()) return;  // its end is under way and will be counted
  state_ = State::kLoaded;
  if (checkpoint && set_up_) return;
  state_ = State::kRenewing;
  services_.end_now(key());
}

void HostSupervisor::retire() {
  if (state_ == State::kGivenUp) return;
  state_ = State::kGivenUp;
  unheard_.reset();
  restart_timer_.reset();
  opening_timer_.reset();
  end_standby();
  if (process_) services_.end_now(key());
}

void HostSupervisor::stop() {
  write_crash();
  name_before_stop_ = state_name();
  unheard_.reset();
  restart_timer_.reset();
  opening_timer_.reset();
  end_standby();
  state_ = process_ ? State::kStopping : State::kStopped;
  if (!process_) return;
  if (!peer_) return services_.end_now(key());
  peer_->send(Stop{.generation = {}, .reason = "the run has ended"});
  stop_timer_ = services_.loop.call_after(kStopWait, [this] { services_.end_now(key()); });
}

void HostSupervisor::end_now() {
  end_standby();
  if (process_) services_.end_now(key());
}

}  // namespace bulkhead
