#include "protocol/hooks.h"

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>

namespace bulkhead {
namespace {

using enum HookKind;
using enum HookPace;

constexpr std::array kHooks = {
    HookInfo{"setup", kNotify, kStart,
             "once per incarnation, after the constructor, before any state is loaded"},
    HookInfo{"on_train_start", kNotify, kWaited, "once, before the first epoch of a run that starts fresh"},
    HookInfo{"on_train_end", kNotify, kWaited, "once, after the last epoch, before the final save"},
    HookInfo{"on_epoch_start", kNotify, kWaited, "before the first step of an epoch"},
    HookInfo{"on_epoch_end", kNotify, kWaited, "after the last step of an epoch"},
    HookInfo{"on_step_start", kNotify, kStep, "before the batches of an optimizer step are used"},
    HookInfo{"on_step_end", kNotify, kStep, "after the optimizer step, with its loss, lr and grad_norm"},
    HookInfo{"should_stop", kNotify, kStep, "polled once per step, directly after on_step_end"},
    HookInfo{"on_validate_start", kNotify, kWaited, "before a validation"},
    HookInfo{"on_validate_step_end", kNotify, kWaited, "after each batch of a validation"},
    HookInfo{"on_validate_end", kNotify, kWaited, "after a validation, with its metrics"},
    HookInfo{"on_save_start", kNotify, kWaited, "before a checkpoint is written"},
    HookInfo{"on_save_end", kNotify, kWaited, "after a checkpoint is complete"},
    HookInfo{"on_load", kNotify, kWaited, "after a checkpoint was loaded and the plugin's state with it"},
    HookInfo{"transform_train_batch", kTransform, kStep, "each training micro-batch, `prefetch` steps ahead"},
    HookInfo{"state_dict", kState, kWaited, "at checkpoints, and when the journal is full"},
    HookInfo{"load_state_dict", kState, kWaited, "at a restart or a resume, with what state_dict gave"},
};

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

}  // namespace

std::span<const HookInfo> all_hooks() { return kHooks; }

const HookInfo* find_hook(std::string_view name) {
  const auto found =
      std::find_if(kHooks.begin(), kHooks.end(), [&](const HookInfo& hook) { return hook.name == name; });
  return found == kHooks.end() ? nullptr : &*found;
}

std::string nearest_name(std::string_view name, const std::vector<std::string>& names) {
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(2, name.size() / 3) + 1;
  for (const std::string& candidate : names) {
    const std::size_t distance = edit_distance(name, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

}  // namespace bulkhead
