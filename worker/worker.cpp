#include "worker.h"

#include <chrono>
#include <csignal>
#include <sys/signalfd.h>
#include <unistd.h>
#include <utility>

#include "protocol/log.h"
#include "torch_error.h"
#include "training_loop.h"

namespace bulkhead {
namespace {

using namespace std::chrono_literals;

constexpr auto kHeartbeat = 1s;
constexpr auto kGreetingPatience = 30s;
constexpr auto kStorePatience = 60s;
constexpr auto kPartingPatience = 5s;

WorkerDone failed(const Error& error) {
  WorkerDone done;
  done.status = "failed";
  done.reason = error.message;
  return done;
}

}  // namespace

Worker::Worker(Identity identity) : identity_(std::move(identity)) {}

Worker::~Worker() {
  if (thread_.joinable()) thread_.join();
}

int Worker::run() {
  Result<std::unique_ptr<Channel>> channel = connect_channel(loop_, identity_.endpoint);
  if (!channel) {
    spdlog::error("{}", channel.error().message);
    return 1;
  }
  coordinator_ = std::move(*channel);
  coordinator_->start({[this](Message message) { on_message(std::move(message)); },
                       [this](Error error) { on_closed(error); }});
  Hello hello;
  hello.generation = identity_.generation;
  hello.role = "worker";
  hello.rank = identity_.rank;
  hello.pid = ::getpid();
  hello.secret = identity_.secret;
  tell(hello);
  patience_ = loop_.call_after(kGreetingPatience, [this] {
    spdlog::error("the coordinator has not answered within 30 s");
    finish(2);
  });
  beat();
  watch_signals();
  loop_.run();
  return exit_status_;
}

// ----- Loop thread -----

void Worker::tell(Message message) {
  std::visit([&](auto& body) { body.generation = identity_.generation; }, message);
  coordinator_->send(message);
}

void Worker::beat() {
  tell(Heartbeat{identity_.generation, step_.load(std::memory_order_relaxed)});
  if (const auto cpus = cpu_watch_.cpus(); !cpus.empty() && state_ == State::kTraining) {
    step_aside(cpus);
    tell(CpuUse{identity_.generation, cpus, waited_seconds_.load(std::memory_order_relaxed)});
  }
  heartbeat_ = loop_.call_after(kHeartbeat, [this] { beat(); });
}

// This thread keeps off the CPUs on which the others compute, if there are any left.
void Worker::step_aside(const std::vector<std::int64_t>& computing) {
  const Cpus left = without(all_cpus_, Cpus(computing.begin(), computing.end()));
  keep_thread_to(left.empty() ? all_cpus_ : left);
}

void Worker::finish(int exit_status) {
  exit_status_ = exit_status;
  loop_.stop();
}

void Worker::on_closed(const Error& error) {
  if (state_ == State::kReported) return finish(exit_status_);
  spdlog::error("the coordinator is gone: {}", error.message);
  // The compute thread may sit in a collective: there is nothing to wait for.
  ::_exit(1);
}

void Worker::on_message(Message message) {
  if (std::holds_alternative<Welcome>(message)) {
    patience_.reset();
    if (state_ == State::kGreeting) state_ = State::kWaiting;
  } else if (const Refuse* refuse = std::get_if<Refuse>(&message)) {
    spdlog::error("refused: {}", refuse->reason);
    finish(2);
  } else if (StartWorker* begin = std::get_if<StartWorker>(&message)) {
    if (state_ == State::kWaiting) start(std::move(*begin));
  } else if (const StoreReady* store = std::get_if<StoreReady>(&message)) {
    compute_loop_.post([this, store = *store] { store_ = store; });
  } else if (const AttachHost* attach = std::get_if<AttachHost>(&message)) {
    if (plugins_ != nullptr)
      plugins_->attach_host(*attach);
    else
      early_attaches_.push_back(*attach);
  } else if (const GatherWanted* wanted = std::get_if<GatherWanted>(&message)) {
    if (plugins_ != nullptr)
      plugins_->gather_wanted(*wanted);
    else
      early_wanted_.push_back(*wanted);
  } else if (GatherDone* done = std::get_if<GatherDone>(&message)) {
    if (plugins_ != nullptr) plugins_->gather_done(std::move(*done));
  } else if (const HostLost* lost = std::get_if<HostLost>(&message)) {
    if (plugins_ != nullptr)
      plugins_->host_lost(*lost);
    else
      early_losses_.push_back(*lost);
  } else if (const Stop* stop = std::get_if<Stop>(&message)) {
    if (state_ == State::kReported) return finish(exit_status_);
    if (state_ != State::kTraining) return finish(1);
    interrupt(stop->reason);
  }
}

void Worker::interrupt(std::string reason) {
  compute_loop_.post([this, reason = std::move(reason)] {
    if (training_ != nullptr)
      training_->interrupt(reason);
    else
      stop_asked_ = reason;
  });
}

// SIGTERM to this rank alone is an interrupt of all: the ranks agree on it.
void Worker::watch_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  signals_ = ::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signals_ < 0) return spdlog::warn("SIGTERM will end this rank at once: no signalfd");
  signal_watch_ = loop_.watch_readable(signals_, [this] {
    signalfd_siginfo info{};
    while (::read(signals_, &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
      interrupt("SIGTERM to rank " + std::to_string(identity_.rank));
    }
  });
}

void Worker::start(StartWorker start) {
  state_ = State::kTraining;
  thread_ = std::thread([this, start = std::move(start)]() mutable { compute(std::move(start)); });
}

// ----- Compute thread -----

void Worker::compute(StartWorker start) {
  // The last line of defence: what a library throws past its owner.
  Result<WorkerDone> done =
      catching("training", ErrorCode::kFailed, [&]() -> Result<WorkerDone> { return train(start); });
  report(done ? std::move(*done) : failed(done.error()));
}

void Worker::report(WorkerDone done) {
  if (!done.reason.empty()) spdlog::info("{}: {}", done.status, done.reason);
  loop_.post([this, done = std::move(done)]() mutable {
    exit_status_ = done.status == "failed"    ? 1
                   : done.status == "refused" ? 2
                   : done.status == "aborted" ? 3
                                              : 0;
    state_ = State::kReported;
    tell(std::move(done));
    patience_ = loop_.call_after(kPartingPatience, [this] { finish(exit_status_); });
  });
}

std::optional<std::pair<std::string, std::int64_t>> Worker::await_store() {
  const bool told =
      compute_loop_.run_until([this] { return store_.has_value(); }, compute_loop_.now() + kStorePatience);
  if (!told) return std::nullopt;
  return std::pair{store_->host, store_->port};
}

}  // namespace bulkhead
