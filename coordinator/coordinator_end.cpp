// Failures of ranks, their restart, and the end of the run.
#include <algorithm>
#include <utility>

#include "coordinator.h"
#include "protocol/log.h"

namespace bulkhead {
namespace {

using namespace std::chrono_literals;

// A rank whose peer died may report the broken collective before the peer's
// death is seen here.
constexpr Duration kSettleTime = 1s;
// The ranks' own wait after worker_done is 5 s.
constexpr Duration kDoneWait = 10s;

}  // namespace

// ----- Failures -----

void Coordinator::process_ended(const ProcessKey& key, const ProcessEnd& end) {
  CHECK(loop_.in_loop());
  if (key.role == Role::kHost) {
    if (HostSupervisor* host = host_at(key.plugin, key.rank)) host->ended(key.generation, end);
  } else if (WorkerSupervisor* worker = worker_at(key.rank); worker->ended(key.generation, end)) {
    worker_ended(*worker);
  }
  check_gone();
}

void Coordinator::worker_ended(WorkerSupervisor& worker) {
  if (phase_ == Phase::kEnding || phase_ == Phase::kEnded) return;
  if (phase_ == Phase::kRestarting) {
    if (!all_workers([](const WorkerSupervisor& other) { return !other.alive(); })) return;
    phase_ = Phase::kStarting;
    hooks_.cut_back(resume_);
    return launch_workers();
  }
  if (worker.done()) {
    // Its report counts; a failed one is in failures_ already.
    return;
  }
  std::string reason = worker.describe_end();
  Event event{.event = "crash", .rank = worker.rank()};
  event.generation = worker.generation().value;
  event.step = worker.step();
  event.reason = reason;
  record(std::move(event));
  const std::string tail = hooks_.log_tail({Role::kWorker, {}, worker.rank(), worker.generation()});
  if (!tail.empty()) reason += "; its log ends: " + tail;
  rank_failed({.time = loop_.now(), .rank = worker.rank(), .death = true, .reason = std::move(reason)});
}

bool Coordinator::has_agreed_failure() const {
  return std::any_of(failures_.begin(), failures_.end(), [](const auto& failure) { return failure.agreed; });
}

void Coordinator::rank_failed(RankFailure failure) {
  if (failures_.empty()) failed_at_ = loop_.now();
  failures_.push_back(std::move(failure));
  if (has_agreed_failure()) return settle_failures();
  if (failures_.back().death || static_cast<std::int64_t>(failures_.size()) == options_.ranks) {
    return settle_failures();
  }
  if (failures_.size() == 1) settle_timer_ = loop_.call_after(kSettleTime, [this] { settle_failures(); });
}

void Coordinator::settle_failures() {
  settle_timer_.reset();
  // The others say the same when their plugins have heard of it (on_exception).
  const auto is_out = [](const WorkerSupervisor& worker) { return worker.done() || !worker.alive(); };
  if (has_agreed_failure() && !all_workers(is_out)) return;
  const RankDecision decision =
      decide_ranks(failures_, options_.ranks, options_.max_restarts - rank_restarts_);
  spdlog::warn("generation {}: {}", worker_generation_.value, decision.reason);
  if (stopping_) {
    stopping_->reason += " (" + decision.reason + ")";
    return end(*stopping_);
  }
  if (!decision.restart) return end({"failed", 1, decision.reason});
  restart_ranks(decision);
}

// All ranks go, the hosts live on (torchrun's semantics for the ranks).
void Coordinator::restart_ranks(const RankDecision& decision) {
  ++rank_restarts_;
  failures_.clear();
  gathers_.clear();
  const bool running = phase_ == Phase::kRunning;
  phase_ = Phase::kRestarting;
  if (auto newest = hooks_.newest_checkpoint()) resume_ = *newest;
  spdlog::warn("restart {} of {} of the ranks, from {}: {}", rank_restarts_, options_.max_restarts,
               resume_.empty() ? "the beginning" : resume_, decision.reason);
  if (running) {
    for (const auto& host : hosts_) host->worker_gone(!resume_.empty());
  }
  for (const auto& worker : workers_) worker->end_now("ended with the other ranks");
  // Nobody is left when the one that failed was the only one.
  if (!all_workers([](const WorkerSupervisor& worker) { return !worker.alive(); })) return;
  phase_ = Phase::kStarting;
  hooks_.cut_back(resume_);
  launch_workers();
}

// ----- The end -----

void Coordinator::request_stop(const std::string& reason) {
  CHECK(loop_.in_loop());
  if (phase_ == Phase::kEnded) return;
  RunOutcome interrupted{"interrupted", 130, reason};
  if (phase_ == Phase::kRunning) return stop_ranks(std::move(interrupted));
  if (phase_ == Phase::kStopping && std::exchange(stopping_by_ranks_, false)) return;
  if (phase_ != Phase::kEnding) return end(stopping_.value_or(interrupted));
  for (const auto& worker : workers_) worker->end_now("did not end in time");
  for (const auto& host : hosts_) host->end_now();
}

// Ranks save at their next boundary and report; those that do not within the
// grace are killed.
void Coordinator::stop_ranks(RunOutcome outcome) {
  if (phase_ != Phase::kRunning) return end(std::move(outcome));
  for (const auto& worker : workers_) worker->send(Stop{.generation = {}, .reason = outcome.reason});
  begin_stop(std::move(outcome));
}

void Coordinator::begin_stop(RunOutcome outcome) {
  phase_ = Phase::kStopping;
  Event event{.event = "stop"};
  event.reason = outcome.reason;
  record(std::move(event));
  stopping_ = std::move(outcome);
  grace_timer_ = loop_.call_after(options_.grace, [this] {
    stopping_->reason += " (the ranks did not stop in time and were killed)";
    end(*stopping_);
  });
}

void Coordinator::finish_if_all_done() {
  if (!all_workers([](const WorkerSupervisor& worker) { return worker.done().has_value(); })) return;
  if (!failures_.empty()) return;  // about to be settled
  std::vector<WorkerDone> reports;
  for (const auto& worker : workers_) reports.push_back(*worker->done());
  RunOutcome outcome = combine(reports);
  // What made us stop them says how the run ended, unless it had ended anyway.
  if (stopping_ && (outcome.status == "interrupted" || stopping_->status == "aborted")) outcome = *stopping_;
  end(std::move(outcome));
}

void Coordinator::end(RunOutcome outcome) {
  if (phase_ == Phase::kEnding || phase_ == Phase::kEnded) return;
  phase_ = Phase::kEnding;
  outcome_ = std::move(outcome);
  settle_timer_.reset();
  grace_timer_.reset();
  spdlog::info("the run ends: {}, {}", outcome_.status, outcome_.reason);
  for (const auto& worker : workers_) {
    if (!worker->done() || outcome_.status == "refused") {
      worker->end_now("ended with the run");
    } else {
      worker->send(Stop{.generation = {}, .reason = "the run has ended"});
    }
  }
  for (const auto& host : hosts_) host->stop();
  grace_timer_ = loop_.call_after(kDoneWait, [this] {
    for (const auto& worker : workers_) worker->end_now("did not end in time");
  });
  // From the loop: end() may be called from deep within a message.
  settle_timer_ = loop_.call_after(Duration::zero(), [this] { check_gone(); });
}

void Coordinator::check_gone() {
  if (phase_ != Phase::kEnding) return;
  const auto alive = [](const auto& process) { return process->alive(); };
  if (std::any_of(workers_.begin(), workers_.end(), alive) ||
      std::any_of(hosts_.begin(), hosts_.end(), alive))
    return;
  phase_ = Phase::kEnded;
  tick_timer_.reset();
  grace_timer_.reset();
  hooks_.ended();
}

}  // namespace bulkhead
