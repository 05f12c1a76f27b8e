// The rank's side of a plugin's all-gathers: what its calls ask for goes to the
// coordinator, what all ranks said comes back to the call that waits.
//
// Decides nothing and waits for nothing: a peer that dies, is retried or is
// given up is the coordinator's to count.  The loop thread only.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>

#include "plugin_stream.h"
#include "protocol/messages.h"

namespace bulkhead {

class Gathering {
 public:
  struct Surroundings {
    PluginId plugin;
    bool alone = false;  // one process in all: the list has one entry
    std::function<void(Message)> tell_coordinator;
  };

  explicit Gathering(Surroundings surroundings) : around_(std::move(surroundings)) {}

  // A call of `stream` asks.
  void ask(PluginStream& stream, AskRequest request, TimePoint now);
  // Another rank asks in a call that this rank makes too.
  void wanted(const PluginStream& stream, const GatherWanted& wanted);
  // A call has ended; `gone`: without its plugin.
  void over(std::int64_t position, bool gone);
  void done(PluginStream& stream, GatherDone done, TimePoint now);

 private:
  struct Wanted {
    std::string call;
    std::int64_t number = 0;
  };

  void tell(std::string call, std::int64_t number, std::string state, Batch batch = {});

  Surroundings around_;
  std::map<std::pair<std::int64_t, std::int64_t>, Seq> open_;  // (position, number) of those asked
  std::map<std::int64_t, Wanted> wanted_;                      // by position: the calls that have not spoken
};

}  // namespace bulkhead
