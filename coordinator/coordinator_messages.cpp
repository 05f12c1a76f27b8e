// What workers and hosts say, and what follows.
#include <utility>

#include "coordinator.h"
#include "protocol/log.h"

namespace bulkhead {
namespace {

template <class... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};

}  // namespace

// ----- From workers -----

void Coordinator::worker_message(WorkerSupervisor& worker, Message message) {
  const auto host_of = [&](PluginId plugin) { return host_at(plugin, worker.rank()); };
  std::visit(
      Overloaded{
          [&](WorkerDone& done) { worker_done(worker, std::move(done)); },
          [&](StoreReady& store) { store_ready(worker, store); },
          [&](MetricsLine& line) { metrics_line(line); },
          [&](EventLine& line) { event_line(worker, line); },
          [&](HostReady& ready) {
            if (auto* host = host_of(ready.plugin)) host->ready(ready.host_generation);
          },
          [&](HostFault& fault) {
            if (auto* host = host_of(fault.plugin)) host->fault(fault);
          },
          [&](HostPost& post) {
            if (auto* host = host_of(post.plugin)) host->post(post);
          },
          [&](auto& other) {
            using Body = std::decay_t<decltype(other)>;
            worker.end_now("garbage: sent " + std::string(Body::kType) + " to the coordinator out of turn");
          },
      },
      message);
}

void Coordinator::store_ready(const WorkerSupervisor& worker, const StoreReady& store) {
  for (const auto& other : workers_) {
    if (other->rank() != worker.rank()) other->send(store);
  }
}

void Coordinator::metrics_line(const MetricsLine& line) {
  if (!line.fields.is_object()) return;
  const double now = loop_.clock().wall_seconds();
  if (line.fields.contains("loss")) {
    if (seen_.first_metrics_time == 0) seen_.first_metrics_time = now;
    seen_.last_metrics_time = now;
    seen_.metrics = line.fields;
  }
  if (line.fields.contains("validation")) seen_.validation = line.fields["validation"];
  Value fields = line.fields;
  if (!fields.contains("time")) fields["time"] = now;
  hooks_.metrics(fields);
}

void Coordinator::event_line(const WorkerSupervisor& worker, const EventLine& line) {
  Event event = Event::of(line.event, line.fields);
  if (!event.rank) event.rank = worker.rank();
  record(std::move(event));
}

void Coordinator::worker_done(WorkerSupervisor& worker, WorkerDone done) {
  if (worker.done() || phase_ == Phase::kEnding || phase_ == Phase::kEnded) return;
  spdlog::info("worker {}: {} {}", worker.rank(), done.status, done.reason);
  worker.set_done(done);
  if (done.status == "refused") {
    const std::string place = done.key.empty() ? "" : hooks_.place_of(done.key) + ": ";
    return end({"refused", 2, place + done.reason});
  }
  if (done.status == "failed") {
    return rank_failed({.time = loop_.now(), .rank = worker.rank(), .death = false, .reason = done.reason});
  }
  finish_if_all_done();
}

// ----- From hosts -----

void Coordinator::host_loaded(HostSupervisor& host) {
  if (phase_ == Phase::kRunning || phase_ == Phase::kStopping) return attach(host);
  maybe_begin();
}

void Coordinator::host_refused(HostSupervisor& host, const std::string& key, const std::string& sentence) {
  std::string dotted = "plugins." + std::to_string(host.plugin().value);
  if (!key.empty()) dotted += "." + key;
  end({"refused", 2, hooks_.place_of(dotted) + ": plugin \"" + host.config().name + "\": " + sentence});
}

void Coordinator::host_lost(HostSupervisor& host, const std::string& reason, bool restarting) {
  if (phase_ != Phase::kRunning && phase_ != Phase::kStopping) return;
  worker_at(host.rank())
      ->send(HostLost{.generation = {},
                      .plugin = host.plugin(),
                      .host_generation = host.generation(),
                      .reason = reason,
                      .restarting = restarting});
}

void Coordinator::host_gave_up(HostSupervisor& host, const std::string& reason) {
  const bool abort = host.config().on_failure.then == "abort";
  given_up_.insert(host.plugin());
  Event event{.event = abort ? "abort" : "disable", .plugin = host.config().name, .rank = host.rank()};
  event.generation = host.generation().value;
  event.reason = reason;
  record(std::move(event));
  if (abort && phase_ != Phase::kStopping)
    return stop_ranks({"aborted", 3, "plugin \"" + host.config().name + "\": " + reason});
  // The ranks agree on the step from which it is gone everywhere; before they
  // have started it simply takes no part.
  const bool running = phase_ == Phase::kRunning || phase_ == Phase::kStopping;
  for (const auto& other : hosts_) {
    if (other->plugin() != host.plugin()) continue;
    running ? other->mark_disabled() : other->retire();
  }
  maybe_begin();
}

}  // namespace bulkhead
