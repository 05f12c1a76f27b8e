#include "protocol/hooks.h"

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>

namespace bulkhead {
namespace {

using enum HookKind;
using enum HookPace;

// Three steps to add a hook: a line here (and in the two lists that tests compare with this one:
// sdk/include/bulkhead/plugin.h, python/bulkhead/plugin.py), a call in the training loop, a test.
constexpr std::array kHooks = {
    // The plugin process.
    HookInfo{"configure", kNotify, kStart,
             "once, before anything is built: returns changes to the run's configuration",
             "the configuration"},
    HookInfo{"setup", kNotify, kStart,
             "once per incarnation, after the constructor, before any state is loaded",
             "the facts of the process"},
    // The run.
    HookInfo{"on_train_start", kNotify, kWaited, "once, before the first epoch of a run that starts fresh",
             "no metrics"},
    HookInfo{"on_train_end", kNotify, kWaited, "once, after the last epoch, before the final save",
             "metrics of the last step"},
    HookInfo{"on_epoch_start", kNotify, kWaited, "before the first step of an epoch",
             "metrics of the last step"},
    HookInfo{"on_epoch_end", kNotify, kWaited, "after the last step of an epoch", "metrics of the last step"},
    HookInfo{"on_exception", kNotify, kWaited,
             "when the run fails: an exception of `raises`, an error of a rank", "exception: why"},
    // A step.
    HookInfo{"on_step_start", kNotify, kStep, "before the batches of an optimizer step are used",
             "metrics of the step before"},
    HookInfo{"on_backward_end", kNotify, kStep, "after the backward pass of each micro-batch",
             "micro_batch, its loss and accuracy"},
    HookInfo{"on_substep_end", kNotify, kStep, "after each micro-batch of a step but its last",
             "micro_batch, its loss and accuracy"},
    HookInfo{"on_optimizer_step_start", kNotify, kStep, "before the optimizer step, after clipping",
             "metrics, lr and grad_norm of this step"},
    HookInfo{"on_optimizer_step_end", kNotify, kStep, "after the optimizer step",
             "metrics, lr and grad_norm of this step"},
    HookInfo{"on_step_end", kNotify, kStep, "at the end of a step, before its log line, validation and save",
             "metrics, lr and grad_norm of this step"},
    HookInfo{"should_stop", kNotify, kStep, "polled once per step, directly after on_step_end",
             "metrics, lr and grad_norm of this step"},
    HookInfo{"on_log", kNotify, kStep, "after a step whose line goes to metrics.jsonl",
             "metrics, lr and grad_norm of this step"},
    // Validation and test.
    HookInfo{"on_validate_start", kNotify, kWaited, "before a validation", "metrics of the last step"},
    HookInfo{"on_validate_step_end", kNotify, kWaited, "after each batch of a validation",
             "micro_batch, its loss and accuracy"},
    HookInfo{"on_validate_end", kNotify, kWaited, "after a validation",
             "metrics of the validation; best_metric"},
    HookInfo{"on_test_start", kNotify, kWaited, "before the test at the end of training",
             "metrics of the last step"},
    HookInfo{"on_test_step_end", kNotify, kWaited, "after each batch of the test",
             "micro_batch, its loss and accuracy"},
    HookInfo{"on_test_end", kNotify, kWaited, "after the test", "metrics of the test"},
    // Checkpoints.
    HookInfo{"on_save_start", kNotify, kWaited, "before a checkpoint is written", "metrics of the last step"},
    HookInfo{"on_save_end", kNotify, kWaited, "after a checkpoint is complete", "metrics of the last step"},
    HookInfo{"on_load", kNotify, kWaited, "after a checkpoint was loaded and the plugin's state with it",
             "metrics of the last step"},
    // Data.
    HookInfo{"preprocess", kRows, kWaited,
             "1,000 rows of the data set at a time, as columns, before training: may change rows and columns",
             "micro_batch: the number of the chunk; no metrics"},
    HookInfo{"keep", kRows, kWaited, "each row, after all preprocess: whether it stays in the data set",
             "sample: the row's number; no metrics"},
    HookInfo{"encode", kRows, kWaited, "each row that was kept: its tokens and labels",
             "sample: the row's number; no metrics"},
    HookInfo{"transform_image", kSample, kStep,
             "each training image (uint8 [H,W,3]), before it is normalised",
             "sample, path; metrics of step s-prefetch-1"},
    HookInfo{"transform_caption", kSample, kStep, "each training caption, before it is tokenised",
             "sample, path; metrics of step s-prefetch-1"},
    HookInfo{"transform_sample", kSample, kStep,
             "each training sample (image and caption), after the two above",
             "sample, path; metrics of step s-prefetch-1"},
    HookInfo{"collate", kCollate, kStep,
             "each micro-batch of rows (training, validation, test), after the sample hooks: makes the batch",
             "micro_batch; metrics of step s-prefetch-1, else of the last step"},
    HookInfo{"transform_train_batch", kTransform, kStep, "each training micro-batch, `prefetch` steps ahead",
             "micro_batch; metrics of step s-prefetch-1"},
    HookInfo{"transform_validate_batch", kTransform, kStep,
             "each batch of a validation, `prefetch` batches ahead", "micro_batch; metrics of the last step"},
    HookInfo{"transform_test_batch", kTransform, kStep, "each batch of the test, `prefetch` batches ahead",
             "micro_batch; metrics of the last step"},
    // State.
    HookInfo{"state_dict", kState, kWaited, "at checkpoints, and when the journal is full", "no metrics"},
    HookInfo{"load_state_dict", kState, kWaited, "at a restart or a resume, with what state_dict gave",
             "no metrics"},
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

std::string_view name_of(HookKind kind) {
  switch (kind) {
    case kNotify:
      return "notify";
    case kTransform:
      return "transform";
    case kSample:
      return "transform (per sample)";
    case kRows:
      return "transform (data set)";
    case kCollate:
      return "transform (samples to batch)";
    case kState:
      return "state";
  }
  return "";
}

std::string_view name_of(HookPace pace) {
  switch (pace) {
    case kStep:
      return "step";
    case kWaited:
      return "waited";
    case kStart:
      return "start";
  }
  return "";
}

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
