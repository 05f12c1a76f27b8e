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
          [&](CpuUse& use) { cpu_room_.heard(worker.rank(), use, loop_.now()); },
          [&](GatherPart& part) { gather_part(worker, std::move(part)); },
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
  for (const auto& host : hosts_) {
    const bool its = event.plugin == host->config().name && event.rank == host->rank();
    if (its && event.event == "error") host->errors().add(event.reason.value_or(""));
  }
  record(std::move(event));
}

// ----- All-gathers -----

// Only processes of rank scope gather over ranks; a shared one is alone.
void Coordinator::gather_part(WorkerSupervisor& worker, GatherPart part) {
  const HostSupervisor* host = host_at(part.plugin, worker.rank());
  const bool known = host != nullptr && host->config().scope == "rank" && part.number >= 0;
  const bool fits =
      part.state == "over" || part.state == "gone" || (part.state == "part" && part.batch.size() == 1);
  if (!known || !fits) return worker.end_now("garbage: sent a gather_part that no plugin here can ask for");
  send_gathers(gathers_.take(worker.rank(), std::move(part)));
}

void Coordinator::send_gathers(const GatherHub::Words& words) {
  for (const auto& [rank, wanted] : words.wanted) worker_at(rank)->send(wanted);
  for (const GatherDone& done : words.done) {
    for (const auto& worker : workers_) worker->send(done);
  }
}

// ----- Ends -----

void Coordinator::worker_done(WorkerSupervisor& worker, WorkerDone done) {
  if (worker.done() || phase_ == Phase::kEnding || phase_ == Phase::kEnded) return;
  spdlog::info("worker {}: {} {}", worker.rank(), done.status, done.reason);
  worker.set_done(done);
  if (done.status == "refused") {
    const std::string place = done.key.empty() ? "" : hooks_.place_of(done.key) + ": ";
    return end({"refused", 2, place + done.reason});
  }
  if (done.status == "failed") {
    const bool agreed = done.result.is_object() && done.result.value("agreed", Value()) == true;
    return rank_failed({.time = loop_.now(),
                        .rank = worker.rank(),
                        .death = false,
                        .reason = done.reason,
                        .agreed = agreed});
  }
  if (has_agreed_failure()) return settle_failures();
  // One rank was signalled and all have agreed to end; those that do not are
  // given the time that they would have had from us.
  if (done.status == "interrupted" && phase_ == Phase::kRunning) {
    begin_stop({"interrupted", 130, done.reason});
    stopping_by_ranks_ = true;
  }
  finish_if_all_done();
}

// ----- From hosts -----

void Coordinator::host_loaded(HostSupervisor& host) {
  const bool running = phase_ == Phase::kRunning || phase_ == Phase::kStopping;
  if (!running) return maybe_begin();
  const auto input = configure_inputs_.find(host.plugin());
  if (host.needs_configure() && input != configure_inputs_.end()) return host.configure(input->second);
  attach(host);
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
  send_gathers(gathers_.give_up(host.plugin(), host.rank()));
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
