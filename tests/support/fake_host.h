// A scripted plugin host: greets, loads with given traits, leaves when told to
// stop.
#pragma once

#include <optional>
#include <string>

#include "fake_process.h"

namespace bulkhead {

struct FakeHostScript {
  bool greets = true;
  bool loads = true;  // false: stays in its constructor
  bool obeys_stop = true;
  PluginTraits traits{};
  std::optional<LoadFailed> load_failed;  // instead of Loaded
  bool configures = true;                 // false: stays in its configure()
  Configured configured{};                // what configure() gives
};

class FakeHost : public FakeProcess {
 public:
  FakeHost(ProcessKey key, std::unique_ptr<Channel> channel, FakeHostScript& script,
           std::function<void(int)> exit)
      : FakeProcess(key, std::move(channel)), script_(script), exit_(std::move(exit)) {}

  void greet(const std::string& secret) {
    if (!script_.greets) return;
    Hello hello;
    hello.role = "host";
    hello.rank = key().rank;
    hello.plugin = key().plugin;
    hello.generation = key().generation;
    hello.secret = secret;
    connect(std::move(hello), [this](const Message& message) { react(message); });
  }

 private:
  void react(const Message& message) {
    if (std::holds_alternative<Load>(message)) {
      if (script_.load_failed) return send(*script_.load_failed);
      if (script_.loads) send(Loaded{.generation = {}, .traits = script_.traits});
    } else if (std::holds_alternative<Configure>(message)) {
      if (script_.configures) send(script_.configured);
    } else if (std::holds_alternative<Stop>(message) && script_.obeys_stop) {
      exit_(0);
    } else if (std::holds_alternative<Refuse>(message)) {
      exit_(2);
    }
  }

  FakeHostScript& script_;
  std::function<void(int)> exit_;
};

}  // namespace bulkhead
