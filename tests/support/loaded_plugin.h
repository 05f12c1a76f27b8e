// A C++ plugin as the native host runs it, with what it has sent and a rank that
// answers as the test says.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "hook_runner.h"

namespace bulkhead {

// Of build/<preset>/tests/plugins, as "mine" on rank 1 of 2.
inline Load load_of(const std::string& name, Value with = Value::object()) {
  Load load;
  load.config.file = BULKHEAD_BUILD_DIR "/tests/plugins/" + name + ".so";
  load.config.with = std::move(with);
  load.facts.rank = 1;
  load.facts.is_main = false;
  load.facts.world_size = 2;
  load.facts.run_seed = 42;
  load.facts.plugin = "mine";
  load.facts.run_dir = "/runs/x";
  load.facts.map_loc = {{"cuda:0", "cpu"}};
  return load;
}

class LoadedPlugin {
 public:
  static constexpr Generation kOwn{7};

  explicit LoadedPlugin(const Load& load) : loading_(HookRunner::load(load, kOwn)) {
    if (const auto* failed = std::get_if<LoadFailed>(&loading_)) ADD_FAILURE() << failed->failure.message;
  }
  HookRunner& runner() { return *std::get<std::unique_ptr<HookRunner>>(loading_); }

  Reply run(const Call& call) {
    return runner().run(call, {[this](const Message& message) { sent.push_back(message); },
                               [this](const Ask& question) {
                                 asked.push_back(question);
                                 return answer(question);
                               }});
  }
  Reply run(const std::string& hook, std::int64_t step = 0) {
    Call call;
    call.hook = hook;
    call.seq = Seq{9};
    call.context.global_step = step;
    return run(call);
  }
  // What it logged, one line each.
  std::string logged() const {
    std::string lines;
    for (const Message& message : sent) {
      if (const auto* note = std::get_if<Note>(&message)) lines += note->text + "\n";
    }
    return lines;
  }

  std::vector<Message> sent;
  std::vector<Ask> asked;
  // Nothing: nobody waits any more.
  std::function<std::optional<Answer>(const Ask&)> answer = [](const Ask&) { return std::nullopt; };

 private:
  HookRunner::Loading loading_;
};

}  // namespace bulkhead
