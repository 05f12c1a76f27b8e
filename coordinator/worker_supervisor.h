// One rank of the run over all its incarnations: launched, greeted, running,
// done, and the silence after which it counts as dead.
//
// It restarts nothing: the ranks live and die together, so that is the
// coordinator's.  Used on the loop's thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "peer.h"
#include "process.h"
#include "protocol/event_loop.h"
#include "protocol/messages.h"

namespace bulkhead {

// A worker silent for longer than this is dead.  Its heartbeats come from the
// thread that owns its sockets, not from the one that computes, so a long step
// is no silence.
inline constexpr std::chrono::seconds kHeartbeatTimeout{10};
inline constexpr std::chrono::seconds kHeartbeatInterval{1};

class WorkerSupervisor {
 public:
  // What it needs done and what it tells; outlives it.
  struct Services {
    EventLoop& loop;
    std::function<Result<std::int64_t>(const ProcessKey&)> launch;  // its pid
    std::function<void(const ProcessKey&)> end_now;                 // SIGKILL to its group; its end follows
    std::int64_t& stale;                                            // counts stale messages

    std::function<void(WorkerSupervisor&)> greeted;
    std::function<void(WorkerSupervisor&, Message)> message;  // all but heartbeats
    std::function<void(WorkerSupervisor&)> launch_failed;     // verdict() says why
  };

  WorkerSupervisor(std::int64_t rank, Services& services) : rank_(rank), services_(services) {}

  // Starts an incarnation; the one before has ended.
  void launch(Generation generation);
  bool awaits(Generation generation) const { return alive_ && !peer_ && generation == generation_; }
  void greeted(std::unique_ptr<Peer> peer, const Hello& hello);
  // Stamped with its generation; dropped where there is no connection.
  template <class Body>
  void send(Body body) {
    if (peer_) peer_->send(std::move(body));
  }
  // Its process has ended; false for one that is not the current.
  bool ended(Generation generation, const ProcessEnd& end);
  // SIGKILL; `verdict` is then the reason of its death.
  void end_now(const std::string& verdict);
  // Training has ended on it; what it said is in done().
  void set_done(WorkerDone done) { done_ = std::move(done); }

  std::int64_t rank() const { return rank_; }
  Generation generation() const { return generation_; }
  std::int64_t pid() const { return pid_; }
  bool alive() const { return alive_; }
  bool connected() const { return peer_ != nullptr; }
  // As its last heartbeat had it.
  std::int64_t step() const { return step_; }
  const std::optional<WorkerDone>& done() const { return done_; }
  // How the last incarnation ended; nothing while it lives.
  const std::optional<ProcessEnd>& exit() const { return exit_; }
  // "no heartbeat for 10 s", "SIGSEGV".
  std::string describe_end() const;

 private:
  void on_message(Message message);
  void on_closed(const Error& why);
  void expect_sign_within(Duration limit, const std::string& verdict);
  ProcessKey key() const { return {Role::kWorker, {}, rank_, generation_}; }

  std::int64_t rank_;
  Services& services_;
  Generation generation_;
  std::int64_t pid_ = 0;
  bool alive_ = false;
  std::int64_t step_ = 0;
  std::string verdict_;
  std::optional<WorkerDone> done_;
  std::optional<ProcessEnd> exit_;
  std::unique_ptr<Peer> peer_;
  EventLoop::Handle silence_timer_;
};

}  // namespace bulkhead
