#include "plugin_check.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "protocol/hooks.h"

namespace bulkhead {
namespace {

struct Claim {
  std::string_view name;
  std::string_view hook;  // the one it makes exclusive
};
constexpr std::array kClaims{
    Claim{"train_batch", "transform_train_batch"},
    Claim{"validate_batch", "transform_validate_batch"},
    Claim{"test_batch", "transform_test_batch"},
    Claim{"should_stop", "should_stop"},
};

std::string in_quotes(std::string_view text) { return "\"" + std::string(text) + "\""; }

const Claim* find_claim(std::string_view name) {
  for (const Claim& claim : kClaims) {
    if (claim.name == name) return &claim;
  }
  return nullptr;
}

// Its first hook for which `has` is true; empty without one.
std::string hook_that(const PluginTraits& traits, bool (*has)(const HookInfo&)) {
  for (const std::string& hook : traits.hooks) {
    const HookInfo* info = find_hook(hook);
    if (info != nullptr && has(*info)) return hook;
  }
  return {};
}

bool moves_batch(const HookInfo& hook) { return hook.moves_batch(); }
bool moves_data(const HookInfo& hook) { return hook.moves_batch() || hook.kind == HookKind::kRows; }

// A row is encoded once, and a batch is made once.
std::optional<PluginRefusal> check_exclusive(std::span<const LoadedPlugin> plugins, std::size_t place) {
  for (const char* hook : {"encode", "collate"}) {
    if (!plugins[place].traits.has(hook)) continue;
    for (std::size_t first = 0; first < place; ++first) {
      if (!plugins[first].traits.has(hook)) continue;
      return PluginRefusal{place, "use",
                           "overrides " + std::string(hook) + ", but so does plugin " +
                               in_quotes(plugins[first].config.name) +
                               ", and only one can; take one of the two out of the run"};
    }
  }
  return std::nullopt;
}

std::optional<PluginRefusal> check_claims(std::span<const LoadedPlugin> plugins, std::size_t place) {
  const LoadedPlugin& owner = plugins[place];
  for (const std::string& name : owner.traits.claims) {
    const Claim* claim = find_claim(name);
    if (claim == nullptr) {
      return PluginRefusal{place, "use",
                           "claims " + in_quotes(name) +
                               ", which cannot be claimed; train_batch, validate_batch, test_batch and "
                               "should_stop can"};
    }
    for (std::size_t other = 0; other < plugins.size(); ++other) {
      if (other == place) continue;
      const PluginTraits& traits = plugins[other].traits;
      const bool claims_too =
          std::find(traits.claims.begin(), traits.claims.end(), name) != traits.claims.end();
      if (!claims_too && !traits.has(claim->hook)) continue;
      return PluginRefusal{
          other, "use",
          (claims_too ? "claims " + in_quotes(name) : "overrides " + std::string(claim->hook)) +
              ", but plugin " + in_quotes(owner.config.name) + " claims " + in_quotes(name) +
              " for itself; take one of the two out of the run"};
    }
  }
  return std::nullopt;
}

std::optional<PluginRefusal> check_alone(const LoadedPlugin& plugin, std::size_t place) {
  const std::string transform = hook_that(plugin.traits, moves_data);
  if (transform.empty()) return std::nullopt;
  if (!plugin.traits.steers) {
    return PluginRefusal{
        place, "use",
        "says steers = False but overrides " + transform +
            ", whose result the run waits for; such a plugin may override on_… and state hooks only"};
  }
  // The data set stage is rank 0's alone: one process for the job sees what it would see in scope rank.
  const bool in_job = plugin.config.scope == "job";
  const std::string shared = in_job ? hook_that(plugin.traits, moves_batch) : transform;
  if (plugin.config.scope != "rank" && !shared.empty() && !plugin.traits.stateless) {
    return PluginRefusal{
        place, "scope",
        "overrides " + shared + " in scope " + plugin.config.scope +
            ", where one process serves several ranks, but does not say stateless = True; say "
            "so if its attributes do not change after setup, or use scope: rank"};
  }
  return std::nullopt;
}

}  // namespace

bool moves_batches(const PluginTraits& traits) { return !hook_that(traits, moves_batch).empty(); }

std::optional<PluginRefusal> check_plugins(std::span<const LoadedPlugin> plugins) {
  for (std::size_t place = 0; place < plugins.size(); ++place) {
    if (auto refusal = check_alone(plugins[place], place)) return refusal;
    if (auto refusal = check_claims(plugins, place)) return refusal;
    if (auto refusal = check_exclusive(plugins, place)) return refusal;
  }
  return std::nullopt;
}

}  // namespace bulkhead
