#include "integration/simulation/world.h"

#include <algorithm>
#include <csignal>

namespace bulkhead::simulation {
namespace {

constexpr int kMostFaults = 12;
constexpr Duration kFaultsWithin = 3s;  // of a run's start; a run takes about a second where nothing fails
constexpr Duration kMostTime = 3600s;   // of a run: what hangs is found by deadlines of 30 s

ProcessEnd killed_by(int signal) { return {.exit_code = {}, .signal = signal}; }

}  // namespace

World::World(Options options) : options_(options), random_(options.seed) {
  CoordinatorOptions coordinator;
  coordinator.config.name = "run";
  for (std::int64_t plugin = 0; plugin < kPlugins; ++plugin) {
    PluginConfig config;
    config.name = "plugin" + std::to_string(plugin);
    config.standby = draw(2) == 0;
    config.on_failure = {.restarts = 1000, .within_seconds = 300, .then = "abort"};
    coordinator.config.plugins.push_back(std::move(config));
  }
  coordinator.ranks = options_.ranks;
  coordinator.secret = kSecret;
  result_.trained.resize(static_cast<std::size_t>(options_.ranks));
  coordinator_ = std::make_unique<Coordinator>(loop_, std::move(coordinator), hooks());
}

CoordinatorHooks World::hooks() {
  CoordinatorHooks hooks;
  hooks.launch = [this](const ProcessKey& key) { return launch(key); };
  hooks.end_now = [this](const ProcessKey& key) {
    later("kill", 20ms, [this, key] { end(key, killed_by(SIGKILL)); });
  };
  hooks.keep_hosts_to = [](const Cpus&) {};
  hooks.log_tail = [](const ProcessKey&) { return std::string(); };
  hooks.endpoint = [](const std::string& name) { return "memory://" + name; };
  hooks.place_of = [](const std::string& key) { return key; };
  hooks.run_map = [] { return Value::object(); };
  hooks.newest_checkpoint = [] { return std::optional<std::string>(); };
  hooks.cut_back = [](const std::string&) {};
  hooks.event = [this](const Event& event) {
    result_.deaths += event.event == "crash" || event.event == "hang";
  };
  hooks.metrics = [](const Value&) {};
  hooks.ended = [this] { ended_ = true; };
  return hooks;
}

Result World::run() {
  coordinator_->start();
  if (options_.faults) plan_faults();
  while (!ended_ && result_.broken.empty()) {
    for (int turn = 0; loop_.run_ready(); ++turn) CHECK(turn < 100'000, "the run never comes to rest");
    if (ended_) break;
    const TimePoint next = loop_.next_timer();
    rule(next != TimePoint::max() && next < TimePoint(kMostTime), "the run does not end");
    // Sometimes the machine stands still for a while.
    const Duration late = options_.faults && draw(500) == 0 ? moment(4s) : Duration{0};
    if (result_.broken.empty()) clock_.advance(std::max(next - loop_.now(), Duration{0}) + late);
  }
  result_.status = coordinator_->outcome().status;
  return result_;
}

bulkhead::Result<std::int64_t> World::launch(const ProcessKey& key) {
  auto [ours, theirs] = memory_channels(loop_, loop_);
  const auto channel = std::make_shared<std::unique_ptr<Channel>>(std::move(ours));
  if (key.role == Role::kHost) {
    hosts_[key] = std::make_unique<Host>(*this, key, std::move(theirs));
  } else {
    ranks_[key] = std::make_unique<Rank>(*this, key, std::move(theirs));
  }
  later("start", 100ms, [this, key, channel] {
    if (!hosts_.contains(key) && !ranks_.contains(key)) return;
    coordinator_->accept(std::move(*channel));
    key.role == Role::kHost ? hosts_.at(key)->greet() : ranks_.at(key)->greet();
  });
  return 1;
}

void World::end(const ProcessKey& key, ProcessEnd how) {
  if (const auto host = hosts_.find(key); host != hosts_.end()) {
    if (host->second->begun())
      marks_[{key.plugin.value, key.rank, key.generation.value}] = host->second->begun();
  }
  // Destroyed in a turn of its own: it may be what is running.
  std::shared_ptr<Host> host;
  std::shared_ptr<Rank> rank;
  if (auto found = hosts_.extract(key)) host = std::move(found.mapped());
  if (auto found = ranks_.extract(key)) rank = std::move(found.mapped());
  if (!host && !rank) return;
  if (host) host->work_.reset();
  loop_.post([host, rank] {});
  later("waitpid", 20ms, [this, key, how] { coordinator_->process_ended(key, how); });
}

void World::later(const std::string& line, Duration most, std::function<void()> task) {
  TimePoint& last = lines_[line];
  last = std::max(last, loop_.now() + moment(most));
  timers_.push_back(loop_.call_at(last, std::move(task)));
}

Host* World::serving(std::int64_t plugin, std::int64_t rank, Generation generation) {
  const auto found = hosts_.find({Role::kHost, PluginId(plugin), rank, generation});
  return found == hosts_.end() ? nullptr : found->second.get();
}

// ----- Faults -----

void World::plan_faults() {
  const auto count = draw(kMostFaults + 1);
  for (std::uint64_t i = 0; i < count; ++i)
    faults_.push_back(loop_.call_at(loop_.now() + moment(kFaultsWithin), [this] { strike(); }));
}

// A second death in one call would rightly be the end of its batch.
bool World::may_kill(const Host& host) {
  if (!host.begun() || host.begun()->value == 0) return true;
  return charged_.emplace(host.key().plugin.value, host.key().rank, host.begun()->value).second;
}

void World::strike() {
  if (hosts_.empty() || coordinator_->phase_name() == "stopping") return;
  auto chosen = hosts_.begin();
  std::advance(chosen, static_cast<std::ptrdiff_t>(draw(hosts_.size())));
  Host& host = *chosen->second;
  if (!may_kill(host)) return;
  switch (draw(4)) {
    case 0:  // it hangs, in a call or before the next
      host.stuck_ = true;
      host.work_.reset();
      return;
    case 1:  // it dies when it has done its work and before anybody hears of it
      if (host.busy_ && !host.calls_.empty()) static_cast<void>(host.answer(host.calls_.front()));
      return end(host.key(), killed_by(SIGSEGV));
    case 2:
      return end(host.key(), {.exit_code = 3, .signal = {}});
    default:
      return end(host.key(), killed_by(SIGKILL));
  }
}

void World::rule(bool holds, const std::string& sentence) {
  if (!holds && result_.broken.empty()) result_.broken = sentence;
}

}  // namespace bulkhead::simulation
