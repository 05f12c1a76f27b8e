#include "host_supervisor.h"

#include <algorithm>
#include <utility>

#include "protocol/hooks.h"
#include "protocol/log.h"

namespace bulkhead {
namespace {

using State = HostSupervisor::State;

using namespace std::chrono_literals;

// After a host is ready, so that it costs no start any time; doubled with each
// standby that dies by itself.
constexpr Duration kStandbyDelay = 300ms;
constexpr int kStandbyDoublings = 8;

constexpr int kReplayedCalls = 256;  // the journal's bound (protocol/README.md)

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
  if (disabled_) return "disabled";
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
      return starts_ > 1 ? "restarting" : "starting";
  }
}

// ----- The one that stands by -----

void HostSupervisor::arm_standby() {
  if (!config_.standby || standby_ != Standby::kNone) return;
  const Duration delay = kStandbyDelay * (1 << std::min(standby_deaths_, kStandbyDoublings));
  standby_timer_ = services_.loop.call_after(delay, [this] { prepare_standby(); });
}

void HostSupervisor::prepare_standby() {
  if (state_ != State::kReady || standby_ != Standby::kNone) return;
  newest_ = newest_.next();
  if (services_.launch(standby_key())) {
    standby_ = Standby::kStarting;
    return;
  }
  ++standby_deaths_;
  arm_standby();
}

// Nothing but heartbeats is due from it.
void HostSupervisor::listen_to_standby() {
  standby_peer_->become(newest_,
                        {.on_message =
                             [this](const Message& message) {
                               if (!std::holds_alternative<Heartbeat>(message))
                                 services_.end_now(standby_key());
                             },
                         .on_closed = [this](const Error&) { services_.end_now(standby_key()); }},
                        services_.stale);
}

void HostSupervisor::end_standby() {
  standby_timer_.reset();
  if (standby_ != Standby::kNone) services_.end_now(standby_key());
}

void HostSupervisor::standby_ended() {
  standby_ = Standby::kNone;
  standby_peer_.reset();
  ++standby_deaths_;
  if (state_ == State::kReady) arm_standby();
}

// ----- The opening -----

void HostSupervisor::start() {
  CHECK(!process_);
  if (crashes_.empty() || state_ == State::kRenewing) since_ = services_.loop.now();
  verdict_.clear();
  configured_ = false;
  set_up_ = false;
  process_ = true;
  state_ = State::kStarting;
  arm_opening(kStartDeadline);
  standby_timer_.reset();
  const Standby standby = std::exchange(standby_, Standby::kNone);
  if (standby == Standby::kNone) newest_ = newest_.next();
  generation_ = newest_;
  ++starts_;
  if (standby == Standby::kNone) return launch();
  if (standby == Standby::kStarting) return;  // its hello is still to come
  spdlog::info("host {}-{} generation {}: has stood by", config_.name, rank(), generation_.value);
  peer_ = std::move(standby_peer_);
  listen();
  load();
}

void HostSupervisor::launch() {
  const auto pid = services_.launch(key());
  if (pid) return;
  // Reported like any death, but not from within start().
  verdict_ = pid.error().message;
  restart_timer_ =
      services_.loop.call_after(Duration::zero(), [this, launched = generation_] { ended(launched, {}); });
}

void HostSupervisor::greeted(std::unique_ptr<Peer> peer, const Hello& hello) {
  CHECK(awaits(hello.generation));
  const bool stands_by = hello.generation != generation_;
  std::unique_ptr<Peer>& known = stands_by ? standby_peer_ : peer_;
  known = std::move(peer);
  stands_by ? listen_to_standby() : listen();
  known->send(Welcome{.generation = {}, .version = std::min(hello.version_max, kProtocolMax)});
  if (!stands_by) return load();
  standby_ = Standby::kGreeted;
}

void HostSupervisor::listen() {
  peer_->become(generation_,
                {.on_message = [this](Message message) { on_message(message); },
                 .on_closed = [this](Error why) { on_closed(why); }},
                services_.stale);
}

void HostSupervisor::load() {
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
  } else if (const auto* answer = std::get_if<Configured>(&message);
             answer && state_ == State::kConfiguring) {
    configure_answered(*answer);
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

void HostSupervisor::configure(const Value& config) {
  CHECK(needs_configure());
  state_ = State::kConfiguring;
  peer_->send(Configure{.generation = {}, .config = config});
  arm_opening(kStartDeadline);
}

void HostSupervisor::configure_answered(const Configured& answer) {
  if (!process_) return;  // its end is told in a moment
  opening_timer_.reset();
  if (!answer.failure) {
    configured_ = ever_configured_ = true;
    state_ = State::kLoaded;
    return services_.configured(*this, answer.changes);
  }
  const Failure& failure = *answer.failure;
  std::string sentence = "configure raised " + failure.type + ": " + failure.message;
  if (ever_configured_) return condemn(std::move(sentence));  // a death like any other
  const std::size_t end = failure.traceback.find_last_not_of(" \n") + 1;
  if (end > 0) sentence += "\n" + failure.traceback.substr(0, end);
  services_.refused(*this, "use", sentence);
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
  ready_at_ = services_.loop.now();
  Event ready = event(std::exchange(restarting_, false) ? "restart" : "ready");
  ready.seconds = seconds_of(services_.loop.now() - since_);
  ready.more["pid"] = traits_.pid;
  services_.record(std::move(ready));
  arm_standby();
}

}  // namespace bulkhead
