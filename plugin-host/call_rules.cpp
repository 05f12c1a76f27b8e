#include "call_rules.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "clean_text.h"
#include "protocol/hooks.h"

namespace bulkhead {
namespace {

constexpr double kLargestWhole = 0x1.0p53;  // a setting travels as a double

const std::vector<std::string>& settable() {
  static const std::vector<std::string> kNames{"grad_accum", "log_every", "lr", "save_every",
                                               "validate_every"};
  return kNames;
}

// "a, b or c"
std::string listed(const std::vector<std::string>& names, const char* last = " or ") {
  std::string text;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (i > 0) text += i + 1 < names.size() ? ", " : last;
    text += names[i];
  }
  return text;
}

// Notify hooks that the ranks wait for.
std::vector<std::string> waited_hooks() {
  std::vector<std::string> names;
  for (const HookInfo& hook : all_hooks()) {
    if (hook.kind == HookKind::kNotify && hook.pace == HookPace::kWaited) names.emplace_back(hook.name);
  }
  return names;
}

// Parameters stand still from their call to the collection of their replies.
std::vector<std::string> hooks_with_weights() {
  std::vector<std::string> names{"on_step_start", "on_optimizer_step_end", "on_step_end", "should_stop",
                                 "on_log"};
  for (std::string& name : waited_hooks()) names.push_back(std::move(name));
  return names;
}

bool among(const std::vector<std::string>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string gather_objection(std::string_view hook, std::string_view scope) {
  if (scope == "node") {
    return "ctx.all_gather is not for scope node, where one process answers for several ranks; use scope "
           "rank or job";
  }
  const HookInfo* info = find_hook(hook);
  const bool together = info != nullptr && info->kind == HookKind::kNotify &&
                        info->pace != HookPace::kStart && hook != "on_exception";
  if (together) return {};
  return "ctx.all_gather is not for " + std::string(hook) +
         ", which the ranks do not call together; ask in a step or epoch hook";
}

}  // namespace

std::string objection_to(std::string_view what, std::string_view hook, std::string_view scope, bool steers) {
  const std::string method = "ctx." + std::string(what);
  if (!steers) {
    return method + " is not for a plugin with steers = false: " +
           (what == "load_weights" ? "its replies are not read" : "nothing waits for it");
  }
  if (what == "all_gather") return gather_objection(hook, scope);
  if (what == "weights") {
    const std::vector<std::string> allowed = hooks_with_weights();
    if (among(allowed, hook)) return {};
    return method + " is not for " + std::string(hook) + ", during which parameters change; ask in " +
           listed(allowed);
  }
  const std::vector<std::string> allowed = waited_hooks();
  if (among(allowed, hook)) return {};
  return method + " is not for " + std::string(hook) + ", which the ranks do not wait for; give weights in " +
         listed(allowed);
}

std::string setting_objection(std::string_view name, std::optional<double> value) {
  const std::string known(clean_text(name, kMaxPluginName));
  if (!among(settable(), known)) {
    const std::string nearest = nearest_name(known, settable());
    return "ctx.set: \"" + known + "\" cannot be set; settable are " + listed(settable(), ", ") +
           (nearest.empty() ? "" : "; did you mean \"" + nearest + "\"?");
  }
  if (known == "lr" && !value) return {};
  char given[32] = "nothing";
  if (value) std::snprintf(given, sizeof given, "%g", *value);
  if (known == "lr") {
    if (std::isfinite(*value) && *value >= 0) return {};
    return "ctx.set: lr must be a finite number of 0 or more, or std::nullopt, not " + std::string(given);
  }
  const double least = known == "grad_accum" ? 1 : 0;
  if (value && *value >= least && *value < kLargestWhole && *value == std::floor(*value)) return {};
  return "ctx.set: " + known + " must be a whole number of " + (least > 0 ? "1" : "0") + " or more, not " +
         given;
}

}  // namespace bulkhead
