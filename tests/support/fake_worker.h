// A scripted rank: greets, announces its store, finds every host ready at once,
// names the call a lost host was in, and says that it is done when told to
// stop.  Each of these can be turned off before it is launched.
#pragma once

#include <string>

#include "fake_process.h"

namespace bulkhead {

struct FakeWorkerScript {
  bool hosts_ready = true;       // HostReady for each AttachHost
  bool obeys_stop = true;        // WorkerDone interrupted on Stop
  bool leaves_when_told = true;  // exit 0 on a Stop after it was done
  bool heartbeats = true;
  std::int64_t step = 0;
  HostPost post{};  // what it says of a lost host: hook, step, batch
};

class FakeWorker : public FakeProcess {
 public:
  FakeWorker(ProcessKey key, std::unique_ptr<Channel> channel, FakeWorkerScript& script,
             std::function<void(int)> exit)
      : FakeProcess(key, std::move(channel)), script_(script), exit_(std::move(exit)) {}

  void greet(const std::string& secret) {
    Hello hello;
    hello.role = "worker";
    hello.rank = key().rank;
    hello.generation = key().generation;
    hello.secret = secret;
    connect(std::move(hello), [this](const Message& message) { react(message); });
  }

  void beat() {
    if (script_.heartbeats) send(Heartbeat{.generation = {}, .step = script_.step});
  }

  void done(const std::string& status, Value result = Value::object(), const std::string& reason = "") {
    WorkerDone message;
    message.status = status;
    message.reason = reason;
    message.result = std::move(result);
    done_ = true;
    send(std::move(message));
  }

 private:
  void react(const Message& message) {
    if (std::holds_alternative<StartWorker>(message) && key().rank == 0) {
      send(StoreReady{.generation = {}, .host = "127.0.0.1", .port = 4000});
    } else if (const auto* attach = std::get_if<AttachHost>(&message)) {
      if (script_.hosts_ready) {
        send(HostReady{
            .generation = {}, .plugin = attach->plugin, .host_generation = attach->host_generation});
      }
    } else if (const auto* lost = std::get_if<HostLost>(&message)) {
      HostPost post = script_.post;
      post.plugin = lost->plugin;
      post.host_generation = lost->host_generation;
      send(std::move(post));
    } else if (std::holds_alternative<Stop>(message)) {
      stop();
    }
  }

  void stop() {
    if (done_ && script_.leaves_when_told) return exit_(0);
    if (!done_ && script_.obeys_stop) done("interrupted");
  }

  FakeWorkerScript& script_;
  std::function<void(int)> exit_;
  bool done_ = false;
};

}  // namespace bulkhead
