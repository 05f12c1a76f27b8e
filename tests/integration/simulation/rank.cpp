#include "integration/simulation/world.h"

namespace bulkhead::simulation {

void Rank::greet() {
  Hello hello;
  hello.role = "worker";
  hello.rank = key().rank;
  hello.generation = key().generation;
  hello.secret = kSecret;
  connect(std::move(hello), [this](const Message& message) { react(message); });
  beat();
}

void Rank::beat() {
  send(Heartbeat{.generation = {}, .step = step_});
  beat_ = world_.loop_.call_after(1s, [this] { beat(); });
}

void Rank::react(const Message& message) {
  if (const auto* start = std::get_if<StartWorker>(&message)) {
    this->start(*start);
  } else if (const auto* attach = std::get_if<AttachHost>(&message)) {
    this->attach(*attach);
  } else if (const auto* lost = std::get_if<HostLost>(&message)) {
    this->lost(*lost);
  } else if (std::holds_alternative<Stop>(message)) {
    world_.later("stop", 1ms,
                 [world = &world_, key = key()] { world->end(key, {.exit_code = 0, .signal = {}}); });
  }
}

void Rank::start(const StartWorker& start) {
  if (key().rank == 0) send(StoreReady{.generation = {}, .host = "127.0.0.1", .port = 4000});
  links_.resize(start.routes.size());
  for (std::size_t plugin = 0; plugin < links_.size(); ++plugin)
    links_[plugin].stream =
        std::make_unique<PluginStream>(start.routes[plugin], StreamOptions{}, effects(plugin));
  for (std::int64_t step = 0; step < kPrefetch; ++step) transform(step);
  take(0);
}

PluginStream::Effects Rank::effects(std::size_t plugin) {
  const PluginId id(static_cast<std::int64_t>(plugin));
  PluginStream::Effects effects;
  effects.send = [this, plugin, id](const Call& call) {
    const Generation to = links_[plugin].host;
    world_.later(
        "call" + std::to_string(plugin) + "-" + std::to_string(key().rank) + "-" + std::to_string(to.value),
        2ms, [world = &world_, id, rank = key().rank, to, call] {
          if (Host* host = world->serving(id.value, rank, to)) host->call(call);
        });
  };
  effects.settle = [this, plugin](Seq seq, const Outcome& outcome) {
    world_.rule(
        settled_.emplace(plugin, seq.value).second,
        "call " + std::to_string(seq.value) + " of plugin " + std::to_string(plugin) + " ended twice");
    world_.rule(outcome.kind == Outcome::Kind::kAnswer, "a call ended as " + outcome.reason);
    settled(plugin, seq, outcome);
  };
  effects.ready = [this, plugin, id] {
    send(HostReady{.generation = {}, .plugin = id, .host_generation = links_[plugin].host});
  };
  effects.fault = [this, plugin, id](HostFault fault) {
    fault.plugin = id;
    fault.host_generation = links_[plugin].host;
    send(std::move(fault));
  };
  effects.dead_letter = [this](const Call&, const std::string& why) {
    world_.rule(false, "a batch was given up: " + why);
  };
  effects.event = [](const std::string&, const Value&) {};
  effects.ask = [](const AskRequest&) {};
  effects.answer = [](const Answer&) {};
  effects.over = [](std::int64_t, bool) {};
  return effects;
}

// The host connects in a moment.
void Rank::attach(const AttachHost& attach) {
  const auto plugin = static_cast<std::size_t>(attach.plugin.value);
  links_[plugin].host = attach.host_generation;
  world_.later("attach", 5ms, [this, plugin, attach, world = &world_, rank = key()] {
    if (!world->ranks_.contains(rank) || links_[plugin].host != attach.host_generation) return;
    if (world->serving(attach.plugin.value, rank.rank, attach.host_generation) == nullptr) return;
    links_[plugin].stream->host_attached(attach.lived_on, world->loop_.now());
    arm(plugin);
  });
}

void Rank::lost(const HostLost& lost) {
  const auto plugin = static_cast<std::size_t>(lost.plugin.value);
  if (lost.host_generation != links_[plugin].host) return;
  links_[plugin].host = {};
  links_[plugin].deadline.reset();
  const auto mark = world_.marks_.find({lost.plugin.value, key().rank, lost.host_generation.value});
  HostPost post = links_[plugin].stream->host_lost(lost.restarting, lost.reason,
                                                   mark == world_.marks_.end() ? std::nullopt : mark->second);
  post.plugin = lost.plugin;
  post.host_generation = lost.host_generation;
  send(std::move(post));
}

// The one place where stale messages end, as in HostLink.
void Rank::from_host(std::size_t plugin, Generation host, const Reply& reply) {
  if (plugin >= links_.size() || host != links_[plugin].host) return;
  links_[plugin].stream->on_reply(reply, world_.loop_.now());
  arm(plugin);
}

void Rank::arm(std::size_t plugin) {
  const TimePoint due = links_[plugin].stream->next_deadline();
  if (due == TimePoint::max()) return links_[plugin].deadline.reset();
  links_[plugin].deadline = world_.loop_.call_at(due, [this, plugin] {
    links_[plugin].stream->on_tick(world_.loop_.now());
    arm(plugin);
  });
}

// ----- Training -----

CallContext Rank::context(std::int64_t step) const {
  CallContext context;
  context.global_step = step;
  context.max_steps = world_.options_.steps;
  return context;
}

void Rank::transform(std::int64_t step) {
  if (step >= world_.options_.steps) return;
  const std::uint64_t raw = mix(static_cast<std::uint64_t>(key().rank), static_cast<std::uint64_t>(step));
  transforms_[step] =
      links_[0].stream->submit("transform_train_batch", context(step), world_.loop_.now(), batch_of(raw), 8);
  arm(0);
}

void Rank::take(std::int64_t step) {
  if (step >= world_.options_.steps) return ask_all("state_dict");
  links_[0].stream->want(transforms_.at(step));
}

void Rank::ask_all(const char* hook) {
  awaited_ = static_cast<int>(links_.size());
  std::vector<Seq> seqs;
  for (std::size_t plugin = 0; plugin < links_.size(); ++plugin) {
    seqs.push_back(links_[plugin].stream->submit(hook, context(step_), world_.loop_.now()));
    arm(plugin);
  }
  for (std::size_t plugin = 0; plugin < links_.size(); ++plugin) links_[plugin].stream->want(seqs[plugin]);
}

void Rank::finish() {
  WorkerDone done;
  done.status = "completed";
  done.result = {{"params_sha256", "the same on all ranks"}};
  send(std::move(done));
}

void Rank::settled(std::size_t plugin, Seq seq, const Outcome& outcome) {
  if (step_ >= world_.options_.steps) {
    world_.rule(outcome.state.has_value(), "a plugin has lost its state");
    if (outcome.state) world_.result_.states[{plugin, key().rank}] = number_of(*outcome.state);
    if (--awaited_ == 0) finish();
    return;
  }
  const auto taken = transforms_.find(step_);
  const bool is_batch = taken != transforms_.end() && taken->second == seq && !outcome.batch.empty();
  if (!is_batch) {
    if (--awaited_ > 0) return;
    if (++step_ % kSnapshotEvery == 0) {
      for (Link& link : links_) link.stream->snapshot(world_.loop_.now());
    }
    return take(step_);
  }
  world_.result_.trained[static_cast<std::size_t>(key().rank)].push_back(
      number_of(outcome.batch.at(0).bytes));
  transforms_.erase(taken);
  think_ = world_.loop_.call_after(world_.moment(10ms), [this] { end_step(); });
}

void Rank::end_step() {
  transform(step_ + kPrefetch);
  ask_all("on_step_end");
}

}  // namespace bulkhead::simulation
