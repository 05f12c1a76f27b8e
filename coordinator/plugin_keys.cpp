#include "run_schema.h"
#include "run_schema_words.h"

namespace bulkhead {
namespace {

// The member a row fills.
#define PLUGIN(member) [](ConfigRef config) -> Slot { return &config.plugin->member; }

std::vector<KeySpec> make_plugin_keys() {
  return {
      {.key = "use",
       .kind = KeyKind::kText,
       .slot = PLUGIN(use),
       .meaning =
           "the plugin: file.py:Class, file.py, folder/:Class, pkg.mod:Class, pkg.mod.Class, lib.so, or "
           "NAME of a shipped one",
       .required = true},
      {.key = "name",
       .kind = KeyKind::kName,
       .slot = PLUGIN(name),
       .meaning = "unique; default: the class name, or for a shipped or native plugin its file name"},
      {.key = "with",
       .kind = KeyKind::kMapping,
       .slot = PLUGIN(with),
       .meaning = "constructor arguments",
       .defaults = always("{}")},
      {.key = "scope",
       .kind = KeyKind::kChoice,
       .slot = PLUGIN(scope),
       .meaning =
           "one process per rank; per node, every hook once per rank of it; or one in all, hooks once and "
           "transforms once per rank (in the last two a transform needs stateless = True)",
       .defaults = always("rank"),
       .choices = {"rank", "node", "job"}},
      {.key = "prefetch",
       .kind = KeyKind::kInteger,
       .slot = PLUGIN(prefetch),
       .meaning = "how far transforms of training batches run ahead",
       .unit = "steps",
       .defaults = always("2"),
       .range = from_to(0, 64)},
      {.key = "deadline",
       .kind = KeyKind::kDuration,
       .slot = PLUGIN(deadline_seconds),
       .meaning = "longest time for one call before the process is killed as hung; without this key epoch, "
                  "validation, "
                  "save and train hooks have 10 min; of a start the constructor, configure, and setup with "
                  "the first "
                  "state_dict have 5 min each, with this key too",
       .unit = "duration",
       .defaults = always("30s"),
       .range = above(0)},
      {.key = "on_failure.restarts",
       .kind = KeyKind::kInteger,
       .slot = PLUGIN(on_failure.restarts),
       .meaning = "restarts allowed within the window",
       .defaults = always("3"),
       .range = from_to(0, 1'000'000)},
      {.key = "on_failure.within",
       .kind = KeyKind::kDuration,
       .slot = PLUGIN(on_failure.within_seconds),
       .meaning = "length of the window",
       .unit = "duration",
       .defaults = always("300s"),
       .range = above(0)},
      {.key = "on_failure.then",
       .kind = KeyKind::kChoice,
       .slot = PLUGIN(on_failure.then),
       .meaning = "when the restarts are used up: train on without the plugin, or end the run",
       .defaults = always("disable"),
       .choices = {"disable", "abort"}},
      {.key = "on_poison",
       .kind = KeyKind::kChoice,
       .slot = PLUGIN(on_poison),
       .meaning =
           "a batch that failed the plugin for good: train on it unchanged, leave it out, or end the run",
       .defaults = always("identity"),
       .choices = {"identity", "skip", "abort"}},
      {.key = "check",
       .kind = KeyKind::kChoice,
       .slot = PLUGIN(check_finite),
       .meaning = "search the batches it returns for NaN and Inf",
       .defaults = always("off"),
       .choices = {"off", "finite"}},
      {.key = "limits.memory",
       .kind = KeyKind::kSize,
       .slot = PLUGIN(limits.memory_bytes),
       .meaning = "address space of the process; default: no limit",
       .unit = "size",
       .range = at_least(1)},
      {.key = "limits.cpu",
       .kind = KeyKind::kInteger,
       .slot = PLUGIN(limits.cpu),
       .meaning = "cores that the process may use; default: no limit",
       .unit = "cores",
       .range = from_to(1, 4096)},
      {.key = "limits.open_files",
       .kind = KeyKind::kInteger,
       .slot = PLUGIN(limits.open_files),
       .meaning = "open files of the process; default: the system's limit",
       .unit = "files",
       .range = from_to(16, 1 << 20)},
      {.key = "affinity",
       .kind = KeyKind::kText,
       .slot = PLUGIN(affinity),
       .meaning = "CPUs that the process runs on, like 0-3,8; none: any; auto: any but those on which ranks "
                  "compute, as long as there are others and no rank waits for a plugin",
       .defaults = always("auto")},
      {.key = "transport",
       .kind = KeyKind::kChoice,
       .slot = PLUGIN(transport),
       .meaning = "how calls reach the process: on the rank's machine through a ring, with tensors in shared "
                  "memory; or, as between machines, through a socket with tensors byte by byte",
       .defaults = always("auto"),
       .choices = {"auto", "socket"}},
      {.key = "spin",
       .kind = KeyKind::kInteger,
       .slot = PLUGIN(spin_us),
       .meaning =
           "how long the process and its ranks go on looking for messages before they sleep: spares a "
           "call its wake-ups, for CPU time; only where compute threads and plugin processes have a CPU each",
       .unit = "microseconds",
       .defaults = always("0"),
       .range = from_to(0, 50)},
      {.key = "standby",
       .kind = KeyKind::kBoolean,
       .slot = PLUGIN(standby),
       .meaning = "start the next process while this one serves, so that a death costs no start; it holds "
                  "nothing of the plugin yet",
       .defaults = always("true")},
      {.key = "device",
       .kind = KeyKind::kChoice,
       .slot = PLUGIN(device),
       .meaning =
           "where its batch transforms see their tensors: in host memory; or on the rank's GPU, as CUDA "
           "tensors, without a copy through the host",
       .defaults = always("cpu"),
       .choices = {"cpu", "cuda"}},
      {.key = "python",
       .kind = KeyKind::kInterpreter,
       .slot = PLUGIN(python),
       .meaning = "interpreter of the plugin's own environment; default: the one scripts/setup made"},
  };
}

#undef PLUGIN

}  // namespace

const std::vector<KeySpec>& plugin_keys() {
  static const std::vector<KeySpec> keys = make_plugin_keys();
  return keys;
}

}  // namespace bulkhead
