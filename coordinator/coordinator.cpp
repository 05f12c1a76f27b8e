#include "coordinator.h"

#include <algorithm>
#include <utility>

#include "checkpoint_list.h"
#include "plugin_check.h"
#include "protocol/log.h"

namespace bulkhead {

Coordinator::Coordinator(EventLoop& loop, CoordinatorOptions options, CoordinatorHooks hooks)
    : loop_(loop),
      options_(std::move(options)),
      hooks_(std::move(hooks)),
      host_services_{
          .loop = loop,
          .launch = hooks_.launch,
          .end_now = hooks_.end_now,
          .record = [this](Event event) { record(std::move(event)); },
          .stale = stale_,
          .loaded = [this](HostSupervisor& host) { host_loaded(host); },
          .configured = [this](HostSupervisor& host,
                               const Value& changes) { host_configured(host, changes); },
          .refused = [this](HostSupervisor& host, const std::string& key,
                            const std::string& sentence) { host_refused(host, key, sentence); },
          .lost = [this](HostSupervisor& host, const std::string& reason,
                         bool restarting) { host_lost(host, reason, restarting); },
          .gave_up = [this](HostSupervisor& host, const std::string& reason) { host_gave_up(host, reason); },
      },
      worker_services_{
          .loop = loop,
          .launch = hooks_.launch,
          .end_now = hooks_.end_now,
          .stale = stale_,
          .greeted = [this](WorkerSupervisor&) { maybe_begin(); },
          .message = [this](WorkerSupervisor& worker,
                            Message message) { worker_message(worker, std::move(message)); },
          .launch_failed =
              [this](WorkerSupervisor& worker) {
                process_ended({Role::kWorker, {}, worker.rank(), worker.generation()}, {});
              },
      },
      greeter_(loop, {.secret = options_.secret,
                      .refusal = [this](const Hello& hello) { return refusal_of(hello); },
                      .admit = [this](std::unique_ptr<Peer> peer,
                                      const Hello& hello) { admit(std::move(peer), hello); }}),
      gathers_(options_.ranks) {
  seen_.resumed_from = options_.resumed_from;
  resume_ = options_.resume;
  make_supervisors();
}

void Coordinator::make_supervisors() {
  for (std::int64_t rank = 0; rank < options_.ranks; ++rank) {
    workers_.push_back(std::make_unique<WorkerSupervisor>(rank, worker_services_));
  }
  for (std::size_t place = 0; place < options_.config.plugins.size(); ++place) {
    const PluginConfig& plugin = options_.config.plugins[place];
    const std::int64_t processes = plugin.scope == "rank" ? options_.ranks : 1;
    for (std::int64_t rank = 0; rank < processes; ++rank) {
      Facts facts = facts_of(rank);
      facts.plugin = plugin.name;
      facts.scope = plugin.scope;
      hosts_.push_back(std::make_unique<HostSupervisor>(PluginId(static_cast<std::int64_t>(place)), plugin,
                                                        std::move(facts), host_services_));
    }
  }
}

// One node: its ranks are all ranks, and rank 0 is the home of a process that
// ranks share.
Facts Coordinator::facts_of(std::int64_t rank) const {
  Facts facts;
  facts.rank = rank;
  facts.local_rank = rank;
  facts.world_size = options_.ranks;
  facts.local_world_size = options_.ranks;
  facts.is_distributed = options_.ranks > 1;
  facts.is_main = rank == 0;
  facts.device = options_.config.train.device == "cuda" ? "cuda:" + std::to_string(rank) : "cpu";
  facts.map_loc = {{"cuda:0", facts.device}};
  facts.project = options_.config.name;
  facts.run_dir = options_.run_dir;
  facts.run_seed = options_.config.train.seed;
  return facts;
}

void Coordinator::start() {
  CHECK(loop_.in_loop());
  CHECK(phase_ == Phase::kIdle);
  phase_ = Phase::kStarting;
  for (const auto& host : hosts_) host->start();
  launch_workers();
  tick();
}

void Coordinator::launch_workers() {
  worker_generation_ = worker_generation_.next();
  cpu_room_.forget();
  for (const auto& worker : workers_) worker->launch(worker_generation_);
}

// Each second: workers know by it that we live.
void Coordinator::tick() {
  for (const auto& worker : workers_) worker->send(Heartbeat{});
  place_hosts();
  tick_timer_ = loop_.call_after(kHeartbeatInterval, [this] { tick(); });
}

void Coordinator::place_hosts() {
  Cpus cpus = cpu_room_.for_hosts(loop_.now());
  if (cpus == std::exchange(host_cpus_, cpus)) return;
  hooks_.keep_hosts_to(cpus);
}

// ----- Greeting -----

std::string Coordinator::refusal_of(const Hello& hello) {
  const std::string number = " generation " + std::to_string(hello.generation.value);
  if (phase_ == Phase::kEnding || phase_ == Phase::kEnded) return "the run has ended";
  if (hello.role == "worker") {
    const WorkerSupervisor* worker = worker_at(hello.rank);
    if (worker != nullptr && worker->awaits(hello.generation)) return {};
    if (worker != nullptr && hello.generation < worker->generation()) ++stale_;
    return "no rank " + std::to_string(hello.rank) + number + " is waited for";
  }
  if (hello.role == "host") {
    const HostSupervisor* host = host_at(hello.plugin, hello.rank);
    if (host != nullptr && host->awaits(hello.generation)) return {};
    if (host != nullptr && hello.generation < host->generation()) ++stale_;
    return "no host of plugin " + std::to_string(hello.plugin.value) + " for rank " +
           std::to_string(hello.rank) + number + " is waited for";
  }
  return "the role must be worker or host, not \"" + hello.role + "\"";
}

void Coordinator::admit(std::unique_ptr<Peer> peer, const Hello& hello) {
  if (hello.role == "worker") return worker_at(hello.rank)->greeted(std::move(peer), hello);
  host_at(hello.plugin, hello.rank)->greeted(std::move(peer), hello);
}

HostSupervisor* Coordinator::host_at(PluginId plugin, std::int64_t rank) {
  for (const auto& host : hosts_) {
    if (host->plugin() == plugin && host->rank() == rank) return host.get();
  }
  return nullptr;
}

WorkerSupervisor* Coordinator::worker_at(std::int64_t rank) {
  return rank >= 0 && rank < options_.ranks ? workers_[static_cast<std::size_t>(rank)].get() : nullptr;
}

bool Coordinator::all_workers(const std::function<bool(const WorkerSupervisor&)>& holds) const {
  return std::all_of(workers_.begin(), workers_.end(), [&](const auto& worker) { return holds(*worker); });
}

// ----- The beginning of a generation -----

void Coordinator::maybe_begin() {
  if (phase_ != Phase::kStarting) return;
  if (!all_workers([](const WorkerSupervisor& worker) { return worker.connected(); })) return;
  if (!std::all_of(hosts_.begin(), hosts_.end(), [](const auto& host) { return host->settled(); })) return;
  if (check_loaded() && configure_plugins()) begin();
}

// False when a plugin was refused: the run is then ending.
bool Coordinator::check_loaded() {
  std::vector<LoadedPlugin> loaded;
  std::vector<HostSupervisor*> first_hosts;
  for (const auto& host : hosts_) {
    if (host->rank() != 0 || given_up_.contains(host->plugin())) continue;
    loaded.push_back({host->config(), host->traits()});
    first_hosts.push_back(host.get());
  }
  const auto refusal = check_plugins(loaded);
  if (refusal) host_refused(*first_hosts[refusal->plugin], refusal->key, refusal->sentence);
  return !refusal;
}

void Coordinator::begin() {
  phase_ = Phase::kRunning;
  for (const auto& host : hosts_) {
    if (given_up_.contains(host->plugin())) host->retire();
  }
  spdlog::info("generation {}: {} ranks and {} plugin processes, {}", worker_generation_.value,
               options_.ranks, hosts_.size(), resume_.empty() ? "from the beginning" : "from " + resume_);
  for (const auto& worker : workers_) {
    worker->send(StartWorker{.generation = {},
                             .config = options_.config,
                             .facts = facts_of(worker->rank()),
                             .routes = routes_of(worker->rank()),
                             .resume = resume_,
                             .restarted = rank_restarts_ > 0,
                             .relays = relays()});
    Event event{.event = rank_restarts_ > 0 ? "restart" : "start", .rank = worker->rank()};
    event.generation = worker_generation_.value;
    event.more["pid"] = worker->pid();
    if (rank_restarts_ > 0) event.seconds = std::chrono::duration<double>(loop_.now() - failed_at_).count();
    record(std::move(event));
  }
  record_resume();
  for (const auto& host : hosts_) attach(*host);
}

void Coordinator::record_resume() {
  if (resume_.empty()) return;
  Event event{.event = "resume"};
  event.generation = worker_generation_.value;
  event.step = step_of_checkpoint(resume_);
  event.reason = "from " + resume_;
  record(std::move(event));
}

// Where both sides meet is named here; what they say there we never see.
void Coordinator::attach(HostSupervisor& host) {
  if (host.state() != HostSupervisor::State::kLoaded) return;
  const auto part = [](std::int64_t number) { return std::to_string(number); };
  const std::string endpoint =
      hooks_.endpoint("d" + part(host.plugin().value) + "-" + part(host.rank()) + "-" +
                      part(host.generation().value) + "-" + part(worker_generation_.value));
  worker_at(host.rank())
      ->send(AttachHost{.generation = {},
                        .plugin = host.plugin(),
                        .host_generation = host.generation(),
                        .endpoint = endpoint,
                        .lived_on = host.set_up()});
  host.attach(endpoint, worker_generation_);
}

std::vector<PluginRoute> Coordinator::routes_of(std::int64_t rank) const {
  std::vector<PluginRoute> routes;
  for (const auto& host : hosts_) {
    if (given_up_.contains(host->plugin())) continue;
    if (host->rank() != rank && !serves_every_rank(*host)) continue;
    routes.push_back({host->plugin(), host->config(), host->traits()});
  }
  return routes;
}

// Ranks other than the home relay their calls of it to the home's worker.
bool Coordinator::serves_every_rank(const HostSupervisor& host) {
  const std::string& scope = host.config().scope;
  return scope == "node" || (scope == "job" && moves_batches(host.traits()));
}

// Where the other ranks reach the home's worker, by rank.
std::vector<std::string> Coordinator::relays() const {
  const bool needed = options_.ranks > 1 && std::any_of(hosts_.begin(), hosts_.end(), [&](const auto& host) {
                        return !given_up_.contains(host->plugin()) && serves_every_rank(*host);
                      });
  if (!needed) return {};
  std::vector<std::string> endpoints(1);  // rank 0 is the home
  for (std::int64_t rank = 1; rank < options_.ranks; ++rank) {
    endpoints.push_back(
        hooks_.endpoint("r" + std::to_string(rank) + "-" + std::to_string(worker_generation_.value)));
  }
  return endpoints;
}

// ----- For others to see -----

Summary Coordinator::summary() const { return summarize(outcome_, seen_, rank_restarts_, workers_, hosts_); }

Value Coordinator::result() const {
  const auto& done = workers_.front()->done();
  return done ? done->result : Value();
}

std::vector<PluginProgress> Coordinator::plugin_progress() const {
  std::vector<PluginProgress> lines;
  for (const auto& host : hosts_) {
    const bool several = host->config().scope == "rank" && options_.ranks > 1;
    lines.push_back({.name = host->config().name + (several ? "/" + std::to_string(host->rank()) : ""),
                     .state = host->state_name(),
                     .restarts = std::max<std::int64_t>(0, host->starts() - 1)});
  }
  return lines;
}

std::string Coordinator::phase_name() const {
  switch (phase_) {
    case Phase::kIdle:
    case Phase::kStarting:
      return rank_restarts_ > 0 ? "restarting" : "starting";
    case Phase::kRestarting:
      return "restarting";
    case Phase::kStopping:
    case Phase::kEnding:
      return "stopping";
    case Phase::kRunning:
    case Phase::kEnded:
      return {};
  }
  return {};
}

void Coordinator::record(Event event) {
  if (event.time == 0) event.time = loop_.clock().wall_seconds();
  hooks_.event(event);
}

}  // namespace bulkhead
