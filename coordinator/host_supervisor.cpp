#include "host_supervisor.h"

#include <algorithm>
#include <utility>

#include "protocol/hooks.h"
#include "protocol/log.h"

namespace bulkhead {
namespace {

using namespace std::chrono_literals;
using State = HostSupervisor::State;

constexpr Duration kPostWait = 1s;   // HostLost → HostPost
constexpr Duration kStopWait = 1s;   // Stop → SIGKILL
constexpr Duration kLastWords = 100ms;  // the end of a refused host → its load_failed
constexpr int kReplayedCalls = 256;  // the journal's bound (protocol/README.md)

// "hang", "SIGSEGV", "exit 0".
std::string describe(const CrashSummary& crash) {
  if (crash.reason) return *crash.reason;
  return crash.signal ? *crash.signal : "exit " + std::to_string(crash.exit.value_or(0));
}

double seconds_of(Duration duration) { return std::chrono::duration<double>(duration).count(); }

}  // namespace

HostSupervisor::HostSupervisor(PluginId plugin, const PluginConfig& config, Facts facts, Services& services)
    : plugin_(plugin),
      config_(config),
      facts_(std::move(facts)),
      services_(services),
      policy_(config.on_failure) {}

Event HostSupervisor::event(std::string name) const {
  Event event;
  event.event = std::move(name);
  event.plugin = config_.name;
  event.rank = facts_.rank;
  event.generation = generation_.value;
  return event;
}

std::string HostSupervisor::state_name() const {
  switch (state_) {
    case State::kStopping:
    case State::kStopped:
      return name_before_stop_;
    case State::kReady:
      return "ready";
    case State::kGivenUp:
      return "disabled";
    case State::kWaiting:
    case State::kRenewing:
      return "restarting";
    default:
      return generation_.value > 1 ? "restarting" : "starting";
  }
}

// ----- The opening -----

void HostSupervisor::start() {
  CHECK(!process_);
  if (crashes_.empty() || state_ == State::kRenewing) since_ = services_.loop.now();
  generation_ = generation_.next();
  verdict_.clear();
  set_up_ = false;
  process_ = true;
  state_ = State::kStarting;
  arm_opening(kStartDeadline);
  const auto pid = services_.launch(key());
  if (pid) {
    spdlog::info("host {}-{} generation {}: started, pid {}", config_.name, rank(), generation_.value, *pid);
    return;
  }
  // Reported like any death, but not from within start().
  verdict_ = pid.error().message;
  restart_timer_ =
      services_.loop.call_after(Duration::zero(), [this, launched = generation_] { ended(launched, {}); });
}

void HostSupervisor::greeted(std::unique_ptr<Peer> peer, const Hello& hello) {
  CHECK(awaits(hello.generation));
  peer_ = std::move(peer);
  peer_->become(generation_,
                {.on_message = [this](Message message) { on_message(message); },
                 .on_closed = [this](Error why) { on_closed(why); }},
                services_.stale);
  peer_->send(Welcome{.generation = {}, .version = std::min(hello.version_max, kProtocolMax)});
  peer_->send(Load{.generation = {}, .config = config_, .facts = facts_});
  state_ = State::kLoading;
}

void HostSupervisor::on_message(const Message& message) {
  const bool listens = process_ || unheard_;
  if (!listens || state_ == State::kStopping || state_ == State::kGivenUp) return;
  if (std::holds_alternative<Heartbeat>(message)) {
    if (state_ == State::kOpening && opening_timer_) arm_opening(kStartDeadline);
  } else if (const auto* loaded = std::get_if<Loaded>(&message); loaded && state_ == State::kLoading) {
    traits_ = loaded->traits;
    state_ = State::kLoaded;
    opening_timer_.reset();  // the wait for the ranks is not its own
    services_.loaded(*this);
  } else if (const auto* failed = std::get_if<LoadFailed>(&message); failed && state_ == State::kLoading) {
    load_failed(*failed);
  } else {
    condemn("garbage: sent " + std::string(type_of(message)) + " to the coordinator out of turn");
  }
}

void HostSupervisor::load_failed(const LoadFailed& failed) {
  if (unheard_) restart_timer_.reset();
  unheard_.reset();
  if (!ever_ready_) return services_.refused(*this, failed.key, failed.failure.message);
  // The file was changed under the run: a death like any other.
  condemn("failed to load again: " + failed.failure.message);
  if (!process_) died({.exit_code = 2, .signal = {}});
}

void HostSupervisor::on_closed(const Error& why) {
  if (!process_ || state_ == State::kStopping) return;
  condemn(why.code == ErrorCode::kMalformed ? "garbage: " + why.message : "lost its control connection");
}

void HostSupervisor::attach(const std::string& endpoint, Generation worker_generation) {
  CHECK(state_ == State::kLoaded);
  state_ = State::kOpening;
  if (set_up_) since_ = services_.loop.now();
  peer_->send(Attach{.generation = {}, .endpoint = endpoint, .worker_generation = worker_generation});
  // The worker watches each call of the opening; this is for a host that never
  // gets as far as a call.  Its heartbeats begin it anew.
  const double replay = crashes_.empty() ? 0 : kReplayedCalls * config_.deadline_seconds;
  arm_opening(kStartDeadline +
              std::chrono::ceil<std::chrono::seconds>(std::chrono::duration<double>(replay)));
}

void HostSupervisor::arm_opening(Duration limit) {
  opening_timer_ = services_.loop.call_after(limit, [this] { opening_expired(); });
}

void HostSupervisor::opening_expired() {
  Event hang = event("hang");
  hang.seconds = seconds_of(services_.loop.now() - since_);
  hang.reason = "its start took longer than " + std::to_string(kStartDeadline.count()) + " s";
  services_.record(std::move(hang));
  told_hang_ = true;
  condemn("hang");
}

void HostSupervisor::ready(Generation generation) {
  if (generation != generation_ || state_ != State::kOpening) {
    ++services_.stale;
    return;
  }
  opening_timer_.reset();
  state_ = State::kReady;
  set_up_ = true;
  ever_ready_ = true;
  Event ready = event(std::exchange(restarting_, false) ? "restart" : "ready");
  ready.seconds = seconds_of(services_.loop.now() - since_);
  services_.record(std::move(ready));
}

// ----- The end -----

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
  if (generation != generation_ || !process_) return;
  process_ = false;
  opening_timer_.reset();
  if (may_still_speak(end)) {
    unheard_ = end;
    restart_timer_ = services_.loop.call_after(kLastWords, [this] { died(*std::exchange(unheard_, std::nullopt)); });
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
  crashes_.push_back(std::move(crash));
  unposted_ = generation_;
  if (!attached) return write_crash();
  post_timer_ = services_.loop.call_after(kPostWait, [this] { write_crash(); });
}

void HostSupervisor::restart_or_give_up(bool attached) {
  const std::string reason = describe(crashes_.back());
  const RestartDecision decision = policy_.next(death_times_, services_.loop.now());
  spdlog::warn("host {}-{} generation {}: {} ({})", config_.name, rank(), generation_.value, reason,
               decision.reason);
  if (!decision.restart) {
    state_ = State::kGivenUp;
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
  if (process_) services_.end_now(key());
}

void HostSupervisor::stop() {
  write_crash();
  name_before_stop_ = state_name();
  unheard_.reset();
  restart_timer_.reset();
  opening_timer_.reset();
  state_ = process_ ? State::kStopping : State::kStopped;
  if (!process_) return;
  if (!peer_) return services_.end_now(key());
  peer_->send(Stop{.generation = {}, .reason = "the run has ended"});
  stop_timer_ = services_.loop.call_after(kStopWait, [this] { services_.end_now(key()); });
}

void HostSupervisor::end_now() {
  if (process_) services_.end_now(key());
}

}  // namespace bulkhead
