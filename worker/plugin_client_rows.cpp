// PluginClient's data set stage: one call to one plugin at a time, before there
// is a step.
#include <algorithm>
#include <utility>

#include "batch.h"
#include "plugin_client_loop.h"

namespace bulkhead {

std::vector<std::size_t> PluginClient::places_of(std::string_view hook) const {
  std::vector<std::size_t> places;
  for (std::size_t i = 0; i < plugins_.size(); ++i) {
    if (calls(plugins_[i], hook)) places.push_back(i);
  }
  return places;
}

Outcome PluginClient::call_rows(std::size_t place, std::string_view hook, const CallContext& context,
                                Batch input) {
  const Known& plugin = plugins_[place];
  const auto slot = std::make_shared<Slot>(Slot{plugin.plugin, place, false, {}});
  loop_.post([this, side = loop_side_, slot, place, hook = std::string(hook), context = own(context, plugin),
              input = std::move(input)]() mutable {
    const std::size_t bytes = bytes_of(input);
    const std::int64_t ticket = side->ports[place]->call({hook, std::move(context), std::move(input), bytes});
    side->takers[{place, ticket}] = into(slot);
    side->ports[place]->want(ticket);
  });
  wait_until([&] { return slot->settled; });
  return std::move(slot->outcome);
}

bool PluginClient::has_stage(const Known& plugin) {
  const std::vector<std::string>& hooks = plugin.traits.hooks;
  return std::any_of(hooks.begin(), hooks.end(), [](const std::string& name) {
    const HookInfo* hook = find_hook(name);
    return hook != nullptr && hook->kind == HookKind::kRows;
  });
}

std::map<std::string, PluginClient::Restored> PluginClient::stage_states(const HookContext& context) {
  Collected ignored;  // state_dict asks for nothing
  const std::map<std::string, Blob> states = snapshot_of(has_stage, context, ignored);
  const std::map<std::string, std::int64_t> seqs = last_seqs();
  std::map<std::string, Restored> restored;
  for (const Known& plugin : plugins_) {
    if (!has_stage(plugin) || !seqs.contains(plugin.name)) continue;
    restored[plugin.name].last_seq = Seq(seqs.at(plugin.name));
    if (states.contains(plugin.name)) restored[plugin.name].state = states.at(plugin.name);
  }
  return restored;
}

}  // namespace bulkhead
