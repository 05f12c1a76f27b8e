// A PluginStream with what it asked for, in order, and a host that a test plays.
#pragma once

#include <chrono>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "plugin_stream.h"

namespace bulkhead {

using namespace std::chrono_literals;

inline PluginRoute route_with(std::vector<std::string> hooks, bool stateful) {
  PluginRoute route;
  route.config.name = "probe";
  route.traits.hooks = std::move(hooks);
  route.traits.stateful = stateful;
  return route;
}

inline Batch batch_of(float value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return {{"x", DType::kFloat32, {1}, Blob::of(std::move(bytes))}};
}

inline float value_of(const Batch& batch) {
  float value = 0;
  std::memcpy(&value, batch.at(0).bytes.data, sizeof value);
  return value;
}

class Probe {
 public:
  explicit Probe(PluginRoute route, StreamOptions options = {})
      : stream(std::move(route), options, effects()) {}

  void attach(bool lived_on = false) { stream.host_attached(lived_on, now); }

  Seq submit(const char* hook, std::int64_t step, std::optional<Batch> input = {},
             std::function<Batch()> again = {}) {
    CallContext context;
    context.global_step = step;
    return stream.submit(hook, context, now, std::move(input), 4, std::move(again));
  }

  // Answers the oldest call under way.
  void answer(Reply reply = {}) {
    const Call call = under_way.front();
    under_way.erase(under_way.begin());
    reply.seq = call.seq;
    reply.hook = call.hook;
    if (call.hook == "state_dict" && !reply.has_state && !reply.failure) {
      reply.has_state = true;
      reply.state = Blob::of("state-" + std::to_string(++states));
    }
    stream.on_reply(std::move(reply), now);
  }
  void answer_doubled() {
    Reply reply;
    reply.batch = batch_of(2 * value_of(under_way.front().batch));
    answer(std::move(reply));
  }
  void answer_all() {
    while (!under_way.empty()) {
      if (under_way.front().hook == "transform_train_batch")
        answer_doubled();
      else
        answer();
    }
  }
  // The oldest call under way asks.
  void ask(const std::string& what, std::int64_t number = 0) {
    Ask question;
    question.seq = under_way.front().seq;
    question.number = number;
    question.what = what;
    stream.on_ask(std::move(question), now);
  }
  HostPost lose(bool restarting = true, std::optional<Seq> begun = {}) {
    under_way.clear();
    return stream.host_lost(restarting, "SIGKILL", begun);
  }
  std::vector<std::string> hooks_under_way() const {
    std::vector<std::string> names;
    for (const Call& call : under_way) names.push_back(call.hook + (call.context.replaying ? "*" : ""));
    return names;
  }

  TimePoint now{1s};
  std::vector<Call> under_way;
  std::map<std::int64_t, Outcome> settled;
  std::vector<HostFault> faults;
  std::vector<std::string> events;
  std::vector<AskRequest> asked;
  std::vector<Answer> answers;
  std::vector<std::pair<std::int64_t, bool>> over;  // (position, gone)
  int ready = 0;
  int dead_letters = 0;
  int states = 0;
  PluginStream stream;

 private:
  PluginStream::Effects effects() {
    PluginStream::Effects effects;
    effects.send = [this](Call call) { under_way.push_back(std::move(call)); };
    effects.settle = [this](Seq seq, Outcome outcome) {
      EXPECT_FALSE(settled.contains(seq.value)) << "call " << seq.value << " settled twice";
      settled[seq.value] = std::move(outcome);
    };
    effects.ready = [this] { ++ready; };
    effects.fault = [this](HostFault fault) { faults.push_back(std::move(fault)); };
    effects.dead_letter = [this](const Call&, const std::string&) { ++dead_letters; };
    effects.event = [this](std::string event, Value) { events.push_back(std::move(event)); };
    effects.ask = [this](AskRequest request) { asked.push_back(std::move(request)); };
    effects.answer = [this](Answer answer) { answers.push_back(std::move(answer)); };
    effects.over = [this](std::int64_t position, bool gone) { over.emplace_back(position, gone); };
    return effects;
  }
};

}  // namespace bulkhead
