// A PluginClient on a loop thread of its own, with one observer that no process
// serves: what is sent to it is taken at once and kept or dropped.
#pragma once

#include <thread>

#include "plugin_client.h"

namespace bulkhead {

class ObservedClient {
 public:
  ObservedClient() {
    PluginRoute route;
    route.config.name = "observer";
    route.traits.hooks = {"on_step_end"};
    route.traits.steers = false;
    client_.emplace(compute_, loop_, PluginClient::Options{}, std::vector{route},
                    std::map<std::string, PluginClient::Restored>{}, [](const Message&) {});
    for (CallContext* call : {&context_.rank, &context_.job}) call->metrics = {{"loss", 1}, {"accuracy", 0}};
  }
  ~ObservedClient() {
    client_.reset();
    loop_.post([this] { loop_.stop(); });
    thread_.join();
  }
  ObservedClient(const ObservedClient&) = delete;
  ObservedClient& operator=(const ObservedClient&) = delete;

  void notify(std::int64_t step, PluginClient::When when) {
    context_.rank.global_step = context_.job.global_step = step;
    client_->notify("on_step_end", context_, step, when);
  }
  void collect(std::int64_t step) { client_->collect(step); }

 private:
  EventLoop loop_;
  EventLoop compute_;
  std::thread thread_{[this] { loop_.run(); }};
  std::optional<PluginClient> client_;
  HookContext context_;
};

}  // namespace bulkhead
