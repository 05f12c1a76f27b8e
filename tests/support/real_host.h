// A real plugin host with one plugin, and this process as its coordinator and
// its worker: what a call of a plugin is without a run around it.  Several may
// share a loop and an arena, as those of a rank do.
//
// Needs bulkhead-plugin-host or plugin-host/python; BULKHEAD_BUILD_DIR,
// BULKHEAD_SOURCE_DIR and BULKHEAD_PYTHON say where they are.
#pragma once

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "host_link.h"
#include "protocol/arena.h"
#include "support/started_process.h"
#include "support/temporary_directory.h"

namespace bulkhead {

class RealHost {
 public:
  // Returns when the plugin is ready to be called.  `config`: name, language,
  // file, class_name, with, transport, spin_us, device.  `python`: the host's interpreter; `device`: of the
  // rank's GPU.
  RealHost(EventLoop& loop, Arena& arena, PluginConfig config, std::string python = BULKHEAD_PYTHON,
           DeviceMemory* device = nullptr)
      : loop_(loop), arena_(arena), device_(device), config_(std::move(config)) {
    loop_.spin_for(std::chrono::microseconds(config_.spin_us));
    std::unique_ptr<Channel> control;
    auto listener = listen_channel(loop_, endpoint("control"), {.one_peer = true},
                                   [&](std::unique_ptr<Channel> peer) { control = std::move(peer); });
    CHECK(listener.ok());
    listener_ = *std::move(listener);
    start(std::move(python));
    loop_.run_until([&] { return control != nullptr; });
    control_ = std::move(control);
    control_->start({[this](Message message) { on_control(std::move(message)); }, [](const Error&) {}});
    loop_.run_until([this] { return ready_ || !fault_.empty(); });
    CHECK(ready_, fault_);
  }
  ~RealHost() {
    link_.reset();
    control_->send(Stop{kSelf, "done"});
    process_->signal(SIGTERM);
  }
  RealHost(const RealHost&) = delete;
  RealHost& operator=(const RealHost&) = delete;

  // Begins a call; several may be under way.  `again`: PluginStream::submit().
  void begin(std::string_view hook, const Batch& batch, std::function<Batch()> again = {}) {
    CallContext context;
    context.global_step = ++step_;
    const Seq seq = link_->submit(hook, context, batch.empty() ? std::nullopt : std::optional(batch), 0,
                                  std::move(again));
    link_->want(seq);
  }
  // How many have ended since this was asked last, after waiting for one; 0
  // when the worker has found fault with the host, or none has ended in time.
  int wait(std::chrono::seconds patience = std::chrono::seconds(100)) {
    loop_.run_until([this] { return ended_ > 0 || !fault_.empty(); }, loop_.now() + patience);
    return std::exchange(ended_, 0);
  }
  // The outcome of the last call that ended.
  const Outcome& last() const { return last_; }
  // A call from beginning to end; empty when it has no end.
  std::optional<Outcome> call(std::string_view hook, const Batch& batch, std::function<Batch()> again = {}) {
    begin(hook, batch, std::move(again));
    return wait() > 0 ? std::optional(last_) : std::nullopt;
  }
  // What a worker would have the host ended for; empty while there is nothing.
  const std::string& fault() const { return fault_; }
  StartedProcess& process() { return *process_; }

 private:
  static constexpr Generation kSelf{1};
  static constexpr Generation kHost{2};
  static constexpr const char* kSecret = "a real host";

  std::string endpoint(const std::string& place) const {
    return "ipc://" + (directory_.path() / place).string();
  }

  void start(std::string python) {
    ::setenv("BULKHEAD_ENDPOINT", endpoint("control").c_str(), 1);
    ::setenv("BULKHEAD_SECRET", kSecret, 1);
    ::setenv("BULKHEAD_GENERATION", "2", 1);
    ::setenv("BULKHEAD_PLUGIN", "0", 1);
    ::setenv("BULKHEAD_RANK", "0", 1);
    ::setenv("PYTHONPATH", BULKHEAD_SOURCE_DIR "/plugin-host/python", 1);
    std::vector<std::string> command{std::move(python), "-m", "bulkhead.host"};
    if (config_.language == "cpp") command = {BULKHEAD_BUILD_DIR "/plugin-host/bulkhead-plugin-host"};
    process_ = std::make_unique<StartedProcess>(std::move(command));
  }

  void on_control(Message message) {
    if (std::holds_alternative<Hello>(message)) {
      control_->send(Welcome{kSelf});
      Load load;
      load.generation = kSelf;
      load.config = config_;
      load.facts.plugin = config_.name;
      if (device_ != nullptr) load.facts.device = "cuda:" + std::to_string(device_->device().ordinal());
      load.facts.run_dir = directory_.path().string();
      control_->send(load);
    } else if (const auto* loaded = std::get_if<Loaded>(&message)) {
      attach(loaded->traits);
    } else if (const auto* failed = std::get_if<LoadFailed>(&message)) {
      fault_ = failed->failure.message;
    }
  }

  void attach(const PluginTraits& traits) {
    HostLink::Surroundings around;
    around.loop = &loop_;
    around.generation = kSelf;
    around.secret = kSecret;
    around.tell_coordinator = [this](const Message& message) {
      if (std::holds_alternative<HostReady>(message)) ready_ = true;
      if (const auto* fault = std::get_if<HostFault>(&message)) fault_ = fault->reason;
    };
    around.settle = [this](Seq, Outcome outcome) {
      last_ = std::move(outcome);
      ++ended_;
    };
    around.dead_letter = [](const Call&, const std::string&) {};
    around.arena = &arena_;
    around.device = device_;
    around.alone = true;
    StreamOptions options;
    options.lengths_vary = true;  // an output may have another shape than the last one
    link_.emplace(PluginRoute{PluginId{0}, config_, traits}, options, std::move(around));
    link_->attach({kSelf, PluginId{0}, kHost, endpoint("data"), false});
    control_->send(Attach{kSelf, endpoint("data"), kSelf});
  }

  EventLoop& loop_;
  Arena& arena_;
  DeviceMemory* device_;
  const PluginConfig config_;
  TemporaryDirectory directory_;
  std::unique_ptr<Listener> listener_;
  std::unique_ptr<StartedProcess> process_;
  std::unique_ptr<Channel> control_;
  std::optional<HostLink> link_;
  std::string fault_;
  bool ready_ = false;
  int ended_ = 0;
  std::int64_t step_ = 0;
  Outcome last_;
};

}  // namespace bulkhead
