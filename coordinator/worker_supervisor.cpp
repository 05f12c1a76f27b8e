#include "worker_supervisor.h"

#include <algorithm>
#include <utility>

#include "protocol/hooks.h"
#include "protocol/log.h"

namespace bulkhead {

void WorkerSupervisor::launch(Generation generation) {
  CHECK(!alive_);
  generation_ = generation;
  step_ = 0;
  verdict_.clear();
  done_.reset();
  exit_.reset();
  alive_ = true;
  const auto pid = services_.launch(key());
  if (pid) {
    pid_ = *pid;
    return expect_sign_within(kStartDeadline, "no hello within 300 s of its start");
  }
  verdict_ = pid.error().message;
  silence_timer_ = services_.loop.call_after(Duration::zero(), [this] { services_.launch_failed(*this); });
}

void WorkerSupervisor::greeted(std::unique_ptr<Peer> peer, const Hello& hello) {
  CHECK(awaits(hello.generation));
  peer_ = std::move(peer);
  peer_->become(generation_,
                {.on_message = [this](Message message) { on_message(std::move(message)); },
                 .on_closed = [this](Error why) { on_closed(why); }},
                services_.stale);
  peer_->send(Welcome{.generation = {}, .version = std::min(hello.version_max, kProtocolMax)});
  expect_sign_within(kHeartbeatTimeout, "no heartbeat for 10 s");
  services_.greeted(*this);
}

void WorkerSupervisor::on_message(Message message) {
  if (!alive_ || !verdict_.empty()) return;
  expect_sign_within(kHeartbeatTimeout, "no heartbeat for 10 s");
  if (const auto* heartbeat = std::get_if<Heartbeat>(&message)) {
    step_ = std::max(step_, heartbeat->step);
    return;
  }
  services_.message(*this, std::move(message));
}

void WorkerSupervisor::on_closed(const Error& why) {
  // One that is done hangs up when it leaves.
  if (!alive_ || done_) return;
  end_now(why.code == ErrorCode::kMalformed ? "garbage: " + why.message : "lost its control connection");
}

void WorkerSupervisor::expect_sign_within(Duration limit, const std::string& verdict) {
  silence_timer_ = services_.loop.call_after(limit, [this, verdict] { end_now(verdict); });
}

void WorkerSupervisor::end_now(const std::string& verdict) {
  if (!alive_) return;
  if (verdict_.empty()) verdict_ = verdict;
  silence_timer_.reset();
  services_.end_now(key());
}

bool WorkerSupervisor::ended(Generation generation, const ProcessEnd& end) {
  if (generation != generation_ || !alive_) return false;
  alive_ = false;
  exit_ = end;
  peer_.reset();
  silence_timer_.reset();
  spdlog::info("worker {} generation {}: {}", rank_, generation_.value, describe_end());
  return true;
}

std::string WorkerSupervisor::describe_end() const {
  if (!verdict_.empty()) return verdict_;
  return exit_ ? exit_->describe() : "alive";
}

}  // namespace bulkhead
