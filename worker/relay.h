// The way of a rank's calls to a plugin process that it shares with others: to
// the process's home rank and back (protocol/README.md, rule 14).
//
// RelayHub is the home's end, RelayLink that of another rank.  They carry calls
// and outcomes and know nothing of streams.  A peer that has gone is nobody's
// to notice here: the ranks live and die together.  The loop thread only.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "plugin_stream.h"
#include "protocol/channel.h"
#include "protocol/event_loop.h"
#include "protocol/messages.h"
#include "shared_stream.h"

namespace bulkhead {

RelayOutcome to_wire(PluginId plugin, std::int64_t number, Outcome outcome);
Outcome from_wire(RelayOutcome outcome);

struct RelayIdentity {
  EventLoop* loop = nullptr;
  Generation generation;  // of the ranks
  std::int64_t rank = 0;  // this one
  std::string secret;
};

class RelayHub {
 public:
  struct Handlers {
    std::function<void(std::int64_t rank, PluginId, SharedCall)> call;
    std::function<void(std::int64_t rank, PluginId, std::int64_t number, Batch)> supply;
    std::function<void(std::int64_t rank, PluginId, std::int64_t number)> want;
  };

  // Listens for each rank that has an endpoint in `endpoints`; an Error where
  // it cannot.
  static Result<std::unique_ptr<RelayHub>> open(RelayIdentity identity,
                                                const std::vector<std::string>& endpoints, Handlers handlers);

  void settle(std::int64_t rank, PluginId plugin, std::int64_t number, Outcome outcome);

 private:
  struct Line {
    std::unique_ptr<Listener> listener;
    std::unique_ptr<Channel> channel;  // before its listener it must go
    bool greeted = false;
  };

  RelayHub(RelayIdentity identity, Handlers handlers)
      : identity_(std::move(identity)), handlers_(std::move(handlers)) {}
  void met(std::int64_t rank, std::unique_ptr<Channel> channel);
  void on_message(std::int64_t rank, Message message);

  RelayIdentity identity_;
  Handlers handlers_;
  std::map<std::int64_t, Line> lines_;  // by rank
};

class RelayLink {
 public:
  using Settle = std::function<void(PluginId, std::int64_t number, Outcome)>;

  // Connects; the home may listen later.
  static Result<std::unique_ptr<RelayLink>> open(RelayIdentity identity, const std::string& endpoint,
                                                 Settle settle);

  // Returns the call's number, from 1 for each plugin.
  std::int64_t call(PluginId plugin, SharedCall call);
  void supply(PluginId plugin, std::int64_t number, Batch input);
  void want(PluginId plugin, std::int64_t number);

 private:
  RelayLink(RelayIdentity identity, Settle settle)
      : identity_(std::move(identity)), settle_(std::move(settle)) {}
  void on_message(Message message);
  template <class Body>
  void send(Body body) {
    body.generation = identity_.generation;
    channel_->send(Message{std::move(body)});
  }

  RelayIdentity identity_;
  Settle settle_;
  std::map<PluginId, std::int64_t> numbers_;  // the last given
  std::unique_ptr<Channel> channel_;
};

}  // namespace bulkhead
