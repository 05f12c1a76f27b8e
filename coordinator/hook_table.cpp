#include "hook_table.h"

#include <algorithm>

#include "protocol/hooks.h"

namespace bulkhead {
namespace {

// Whether the ranks wait for it.
std::string waited(const HookInfo& hook) {
  if (hook.pace == HookPace::kStart) return "yes, at start";
  if (hook.pace == HookPace::kWaited) return "yes";
  return hook.moves_batch() ? "no: runs ahead" : "no";
}

}  // namespace

std::string hooks_markdown() {
  std::string text = "| hook | kind | waited for | when | `ctx` holds, besides where and who |\n";
  text += "| --- | --- | --- | --- | --- |\n";
  for (const HookInfo& hook : all_hooks()) {
    text += "| `" + std::string(hook.name) + "` | " + std::string(name_of(hook.kind)) + " | " + waited(hook) +
            " | " + std::string(hook.when) + " | " + std::string(hook.holds) + " |\n";
  }
  return text;
}

std::string hooks_text() {
  std::size_t name_width = 0, kind_width = 0;
  for (const HookInfo& hook : all_hooks()) {
    name_width = std::max(name_width, hook.name.size());
    kind_width = std::max(kind_width, name_of(hook.kind).size());
  }
  const auto padded = [](std::string_view text, std::size_t width) {
    return std::string(text) + std::string(width - text.size() + 2, ' ');
  };
  std::string text;
  for (const HookInfo& hook : all_hooks()) {
    text += padded(hook.name, name_width) + padded(name_of(hook.kind), kind_width) + std::string(hook.when) +
            "\n";
  }
  return text;
}

}  // namespace bulkhead
