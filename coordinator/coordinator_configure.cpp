// Plugins change the run's configuration before anything is built: each is
// asked in list order, all of its processes, and what the first incarnation on
// the lowest rank returned counts (protocol/README.md, "configure").
#include <utility>

#include "coordinator.h"
#include "protocol/log.h"

namespace bulkhead {

// True once every plugin has been asked; false while an answer is awaited, or
// when the run ends because of one.
bool Coordinator::configure_plugins() {
  for (std::size_t place = 0; place < options_.config.plugins.size(); ++place) {
    const PluginId plugin(static_cast<std::int64_t>(place));
    if (given_up_.contains(plugin)) continue;
    if (ask_to_configure(plugin) || !take_changes(plugin)) return false;
  }
  return true;
}

// Asks those of its processes that have not been asked; true when there are
// any.  They all get what the first one got, whatever has been changed since.
bool Coordinator::ask_to_configure(PluginId plugin) {
  bool asked = false;
  for (const auto& host : hosts_) {
    if (host->plugin() != plugin || !host->needs_configure()) continue;
    const auto [input, is_first] = configure_inputs_.try_emplace(plugin);
    if (is_first) input->second = hooks_.run_map();
    host->configure(input->second);
    asked = true;
  }
  return asked;
}

// False when the changes are refused: the run is then ending.
bool Coordinator::take_changes(PluginId plugin) {
  const auto answer = configure_answers_.find(plugin);
  if (answer == configure_answers_.end() || !configured_.insert(plugin).second) return true;
  const Value& changes = answer->second;
  if (changes.is_null() || changes.empty()) return true;
  auto config = hooks_.reconfigure(plugin, changes);
  if (!config) {
    end({"refused", 2, config.error().message});
    return false;
  }
  options_.config = std::move(*config);
  Event event{.event = "configure",
              .plugin = options_.config.plugins[static_cast<std::size_t>(plugin.value)].name};
  event.reason = changes.dump(-1, ' ', false, Value::error_handler_t::replace);
  record(std::move(event));
  return true;
}

void Coordinator::host_configured(HostSupervisor& host, const Value& changes) {
  if (host.rank() == 0) configure_answers_.try_emplace(host.plugin(), changes);
  host_loaded(host);
}

}  // namespace bulkhead
