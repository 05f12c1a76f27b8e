// A plugin host's life: the state machine of protocol/README.md, "A plugin
// host's life", over two channels and one plugin.
//
// One thread reads a message, works and answers, so that a hang is seen as what
// it is.  It decides nothing: the coordinator starts and ends it, the worker
// calls it.  All methods on the loop's thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

#include "call_mark.h"
#include "device_guest.h"
#include "hook_runner.h"
#include "protocol/arena.h"
#include "protocol/channel.h"
#include "protocol/event_loop.h"
#include "protocol/places.h"

namespace bulkhead {

struct PluginHostOptions {
  std::string endpoint;  // of the coordinator
  std::string secret;
  Generation generation;  // of this process
  PluginId plugin;        // its place in the run file
  std::int64_t rank = 0;

  // Between signs of life while no call runs; the protocol's value, leave it.
  std::chrono::milliseconds heartbeat{1000};
  // How long a hello waits for its answer; the protocol's value, leave it.
  std::chrono::milliseconds greeting{30000};
  // How long load_failed may take to leave before the process ends.
  std::chrono::milliseconds farewell{1000};
};

// From BULKHEAD_ENDPOINT, _SECRET, _GENERATION, _PLUGIN and _RANK; an Error
// names the one that is missing or no number.
Result<PluginHostOptions> options_from_environment();

class PluginHost {
 public:
  using Connect = std::function<Result<std::unique_ptr<Channel>>(const std::string& endpoint)>;

  // Does nothing before run().  `connect` makes both connections.
  PluginHost(EventLoop& loop, PluginHostOptions options, Connect connect);
  ~PluginHost();
  PluginHost(const PluginHost&) = delete;
  PluginHost& operator=(const PluginHost&) = delete;

  // Says hello; the loop does the rest until exit_status() is there.
  void start();
  // 0 told to stop or left alone, 1 its own error, 2 refused.
  const std::optional<int>& exit_status() const { return exit_status_; }

 private:
  enum class State {
    kGreeting,  // hello is sent
    kWaiting,   // for load
    kLoaded,    // for attach
    kServing,   // calls
    kEnding,    // load_failed is on its way out
  };

  // The coordinator's messages.
  void on_control(Message message);
  void on_control_closed(const Error& why);
  void on(const Welcome& welcome);
  void on(const Refuse& refuse);
  void on(const Load& load);
  void on(const Configure& configure);
  void on(const Attach& attach);
  void on(const Stop& stop);
  // The worker's.
  void on_data(Message message);
  void on_data_closed(const Error& why);

  HookRunner::Loading load(const Load& load);
  void greet(Channel& channel, std::vector<std::string> capabilities);
  void listen_to_worker();
  void use(const std::vector<std::string>& agreed);
  void drop_worker();
  void run_next_call();
  void run(Call call);
  Status run_on_device(Call& call, Reply& reply);
  std::optional<Answer> ask(const Ask& question);
  void beat();
  void finish(int status, const std::string& why);
  void unexpected(const Message& message, const char* from);

  EventLoop& loop_;
  const PluginHostOptions options_;
  const Connect connect_;
  const pid_t parent_;
  State state_ = State::kGreeting;
  std::optional<int> exit_status_;
  std::uint64_t stale_ = 0;  // messages dropped for their generation

  std::unique_ptr<HookRunner> runner_;
  Duration spin_{0};
  std::unique_ptr<Channel> control_;
  Generation coordinator_;

  Arena arena_{default_arena_bytes()};
  std::unique_ptr<DeviceGuest> gpu_;  // where the run file says `device: cuda`
  std::string worker_path_;           // of its data endpoint; empty when it is on another machine
  std::optional<Places> places_;
  std::unique_ptr<Channel> data_;  // before the places it must go
  Generation worker_;
  CallMark mark_;
  bool welcomed_ = false;   // by the worker
  std::deque<Call> calls_;  // at most the protocol's credits
  CallLine line_;           // to the worker, of the call that runs

  // The call that runs: whether somebody still waits for it, and what it waits
  // for itself.
  bool in_call_ = false;
  bool aborted_ = false;
  const Ask* question_ = nullptr;
  std::optional<Answer> answer_;

  EventLoop::Handle next_call_timer_;
  EventLoop::Handle greeting_timer_;
  EventLoop::Handle heartbeat_timer_;
};

}  // namespace bulkhead
