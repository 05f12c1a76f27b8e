// One plugin as this rank calls it: its process directly, its process as the
// home that other ranks' calls come to as well, or through that home.
//
// A call is named by a ticket, which the port gives.  The loop thread only.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "host_link.h"
#include "relay.h"
#include "shared_stream.h"

namespace bulkhead {

class PluginPort {
 public:
  // How a call of this rank ended.
  using Settle = std::function<void(std::int64_t ticket, Outcome)>;

  // Its own process.
  static std::unique_ptr<PluginPort> direct(PluginRoute route, StreamOptions options,
                                            HostLink::Surroundings around, Settle settle);
  // `ranks` share it, ascending, this one first; `hub` takes what is not ours.
  static std::unique_ptr<PluginPort> home(PluginRoute route, StreamOptions options,
                                          HostLink::Surroundings around, std::vector<std::int64_t> ranks,
                                          RelayHub* const* hub, Settle settle);
  static std::unique_ptr<PluginPort> away(PluginRoute route, RelayLink* relay);

  std::int64_t call(SharedCall call);
  void supply(std::int64_t ticket, Batch input);
  void want(std::int64_t ticket);
  void snapshot();
  // From an agreed step on nobody calls it.
  void retire();
  bool retired() const { return retired_; }

  // A call of another rank, for the home.
  SharedStream* shared() { return shared_.get(); }
  // Null where the process belongs to another rank.
  HostLink* link() { return link_.get(); }
  const PluginRoute& route() const { return route_; }

 private:
  explicit PluginPort(PluginRoute route) : route_(std::move(route)) {}

  PluginRoute route_;
  std::unique_ptr<HostLink> link_;
  std::unique_ptr<SharedStream> shared_;
  RelayLink* relay_ = nullptr;
  std::int64_t rank_ = 0;
  bool retired_ = false;
};

}  // namespace bulkhead
