// The table of hooks: what exists, of which kind, how it is delivered.  Both
// hosts, the worker and the README's hook table go by it; a test compares the
// SDK and the Python package with it.  Values only; any thread.
#pragma once

#include <chrono>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace bulkhead {

// DESIGN §6.1: the kind alone fixes delivery.
enum class HookKind {
  kNotify,     // reply: Control
  kTransform,  // reply: a batch
  kSample,     // the same on the wire; the host calls the hook for each sample of the batch
  kRows,       // the data set stage, on rank 0 before training; reply: rows, verdicts or tokens
  kCollate,    // a micro-batch of token samples; reply: the batch made of them
  kState,      // reply: bytes
};

// Who waits, and for how long.
enum class HookPace {
  kStep,    // collected at a later, fixed step; deadline: the plugin's, 30 s by default
  kWaited,  // the ranks wait for it; deadline 10 min unless the run file gives one
  kStart,   // part of a generation's opening; deadline 5 min for the whole opening
};

struct HookInfo {
  std::string_view name;
  HookKind kind;
  HookPace pace;
  std::string_view when;   // one line for people
  std::string_view holds;  // what ctx holds besides the facts of the process and the place in the run

  // A stage of the chain of transforms: its call carries a micro-batch and its reply gives one.
  bool moves_batch() const { return kind == HookKind::kTransform || takes_samples(); }
  // … and what it gets are samples that no batch has been made of yet.
  bool takes_samples() const { return kind == HookKind::kSample || kind == HookKind::kCollate; }
};

// For people: "notify", "transform (per sample)", "state", …; "step", "waited", "start".
std::string_view name_of(HookKind kind);
std::string_view name_of(HookPace pace);

std::span<const HookInfo> all_hooks();

// nullptr when there is no such hook.
const HookInfo* find_hook(std::string_view name);

// The entry of `names` with the smallest edit distance to `name`; empty when
// nothing is close (distance above a third of the length, at least 2).
std::string nearest_name(std::string_view name, const std::vector<std::string>& names);

inline constexpr std::chrono::seconds kStepDeadline{30};
inline constexpr std::chrono::seconds kWaitedDeadline{600};
inline constexpr std::chrono::seconds kStartDeadline{300};

}  // namespace bulkhead
