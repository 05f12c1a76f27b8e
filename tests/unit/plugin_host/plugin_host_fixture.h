// A PluginHost over memory channels, with a clock that the test moves; the other
// ends of its connections are in `peers_`.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "plugin_host.h"
#include "support/fake_clock.h"

namespace bulkhead {

using std::chrono::milliseconds;
using std::chrono::seconds;

inline constexpr Generation kHost{5};
inline constexpr Generation kCoordinator{1};
inline constexpr Generation kWorker{2};

// The other end of one connection.
struct Peer {
  std::unique_ptr<Channel> channel;
  std::vector<Message> got;
  bool closed = false;
  // What happens when the host asks there; the host waits meanwhile.
  std::function<void(const Ask&)> on_ask;
};

class PluginHostTest : public testing::Test {
 protected:
  PluginHostTest() {
    PluginHostOptions options;
    options.endpoint = "control";
    options.secret = "s3cret";
    options.generation = kHost;
    options.plugin = PluginId{4};
    options.rank = 1;
    host_.emplace(loop_, options, [this](const std::string& endpoint) { return connect(endpoint); });
    host_->start();
    settle();
  }

  Result<std::unique_ptr<Channel>> connect(const std::string& endpoint) {
    if (endpoint == "nowhere") return Error{ErrorCode::kUnavailable, "nobody listens at nowhere"};
    auto [near, far] = memory_channels(loop_, loop_);
    Peer& peer = peers_[endpoint];
    peer = {std::move(far), {}, false, {}};
    peer.channel->start({[&peer](Message message) {
                           peer.got.push_back(std::move(message));
                           const auto* ask = std::get_if<Ask>(&peer.got.back());
                           if (ask != nullptr && peer.on_ask) peer.on_ask(Ask(*ask));
                         },
                         [&peer](const Error&) { peer.closed = true; }});
    return std::move(near);
  }

  void settle() {
    while (loop_.run_ready()) {
    }
  }
  void advance(Duration duration) {
    clock_.advance(duration);
    settle();
  }
  void say(const std::string& endpoint, const Message& message) {
    peers_.at(endpoint).channel->send(message);
    settle();
  }
  // All messages of one type that the host has said there.
  template <class T>
  std::vector<T> said(const std::string& endpoint) {
    std::vector<T> found;
    for (const Message& message : peers_.at(endpoint).got) {
      if (const T* body = std::get_if<T>(&message)) found.push_back(*body);
    }
    return found;
  }

  void welcome() { say("control", Welcome{kCoordinator}); }
  void load(const std::string& name = "echo") {
    Load load;
    load.generation = kCoordinator;
    load.config.file = BULKHEAD_BUILD_DIR "/tests/plugins/" + name + ".so";
    load.facts.plugin = "mine";
    load.facts.map_loc = {{"cuda:0", "cpu"}};
    say("control", load);
  }
  void attach(const std::string& endpoint, Generation worker = kWorker) {
    say("control", Attach{kCoordinator, endpoint, worker});
    say(endpoint, Welcome{worker});
  }
  void serve() {
    welcome();
    load();
    attach("data");
  }
  static Call call_of(std::int64_t seq, const std::string& hook, Generation worker = kWorker) {
    Call call;
    call.generation = worker;
    call.seq = Seq{seq};
    call.hook = hook;
    return call;
  }
  int status() const { return host_->exit_status().value_or(-1); }

  FakeClock clock_;
  EventLoop loop_{clock_};
  std::map<std::string, Peer> peers_;
  std::optional<PluginHost> host_;
};

}  // namespace bulkhead
