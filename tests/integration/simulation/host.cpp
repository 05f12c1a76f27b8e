#include "integration/simulation/world.h"

namespace bulkhead::simulation {

void Host::greet() {
  Hello hello;
  hello.role = "host";
  hello.rank = key().rank;
  hello.plugin = key().plugin;
  hello.generation = key().generation;
  hello.secret = kSecret;
  connect(std::move(hello), [this](const Message& message) { react(message); });
}

void Host::react(const Message& message) {
  if (std::holds_alternative<Load>(message)) {
    world_.later("load" + std::to_string(key().generation.value), 20ms, [this, key = key(), world = &world_] {
      if (!world->hosts_.contains(key)) return;
      Loaded loaded;
      loaded.traits.hooks = {"on_step_end"};
      if (this->key().plugin.value == 0) loaded.traits.hooks.emplace_back("transform_train_batch");
      loaded.traits.stateful = true;
      send(loaded);
    });
  } else if (std::holds_alternative<Attach>(message)) {
    drop_calls();
  } else if (std::holds_alternative<Stop>(message)) {
    world_.later("stop", 1ms,
                 [world = &world_, key = key()] { world->end(key, {.exit_code = 0, .signal = {}}); });
  }
}

void Host::call(Call call) {
  calls_.push_back(std::move(call));
  if (!busy_) begin();
}

void Host::begin() {
  if (calls_.empty() || stuck_) return;
  busy_ = true;
  begun_ = calls_.front().seq;  // 0 for what opens a connection, as the call mark has it
  // Its first call in a while: nearly all are short.
  const Duration takes = world_.draw(50) == 0 ? world_.moment(2s) : world_.moment(3ms);
  work_ = world_.loop_.call_after(takes, [this] {
    busy_ = false;
    if (calls_.empty()) return;  // a worker that is gone had sent it
    const Call call = std::move(calls_.front());
    calls_.pop_front();
    finish(call);
    begin();
  });
}

void Host::finish(const Call& call) {
  Reply reply = answer(call);
  reply.generation = key().generation;
  reply.seq = call.seq;
  reply.hook = call.hook;
  const ProcessKey key = this->key();
  World& world = world_;
  // What has left a process arrives, whatever becomes of it meanwhile.
  world.later("reply" + std::to_string(key.plugin.value) + "-" + std::to_string(key.rank) + "-" +
                  std::to_string(key.generation.value),
              world.draw(30) == 0 ? Duration(500ms) : Duration(2ms), [&world, key, reply = std::move(reply)] {
                for (auto& [rank_key, rank] : world.ranks_) {
                  if (rank_key.rank == key.rank)
                    rank->from_host(static_cast<std::size_t>(key.plugin.value), key.generation, reply);
                }
              });
}

Reply Host::answer(const Call& call) {
  Reply reply;
  if (call.hook == "transform_train_batch") {
    const std::uint64_t in = number_of(call.batch.at(0).bytes);
    reply.batch = batch_of(mix(in, state_));
    state_ = mix(state_, in);
  } else if (call.hook == "on_step_end") {
    state_ = mix(state_, static_cast<std::uint64_t>(call.context.global_step));
  } else if (call.hook == "state_dict") {
    reply.has_state = true;
    reply.state = Blob::of(text_of(state_));
  } else if (call.hook == "load_state_dict") {
    state_ = number_of(call.state);
  }
  return reply;
}

}  // namespace bulkhead::simulation
