// What must hold between the plugins of a run once all have loaded: claims,
// steering, scopes (DESIGN §6.1, §6.2, §6.7).
//
// A pure function of its arguments; any thread.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include "protocol/messages.h"

namespace bulkhead {

struct LoadedPlugin {
  PluginConfig config;
  PluginTraits traits;
};

struct PluginRefusal {
  std::size_t plugin = 0;  // its place in the list given
  std::string key;         // what of its entry is wrong: use | scope
  std::string sentence;
};

// It has a hook through which batches or samples go.
bool moves_batches(const PluginTraits& traits);

// The first plugin, in list order, that may not run as it is; nothing when all
// may.
std::optional<PluginRefusal> check_plugins(std::span<const LoadedPlugin> plugins);

}  // namespace bulkhead
