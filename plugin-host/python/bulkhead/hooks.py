"""The table of hooks, as in protocol/src/hooks.cpp (a test compares them), and the search for the nearest name.

Values and pure functions only.
"""

from __future__ import annotations

import difflib
from typing import Iterable

NOTIFY, TRANSFORM, SAMPLE, STATE = "notify", "transform", "sample", "state"
ROWS, COLLATE = "rows", "collate"  # the data set stage; samples to a batch

# Name → kind, in the order in which traits list them.
HOOKS = {
    # The plugin process.
    "configure": NOTIFY,
    "setup": NOTIFY,
    # The run.
    "on_train_start": NOTIFY,
    "on_train_end": NOTIFY,
    "on_epoch_start": NOTIFY,
    "on_epoch_end": NOTIFY,
    "on_exception": NOTIFY,
    # A step.
    "on_step_start": NOTIFY,
    "on_backward_end": NOTIFY,
    "on_substep_end": NOTIFY,
    "on_optimizer_step_start": NOTIFY,
    "on_optimizer_step_end": NOTIFY,
    "on_step_end": NOTIFY,
    "should_stop": NOTIFY,
    "on_log": NOTIFY,
    # Validation and test.
    "on_validate_start": NOTIFY,
    "on_validate_step_end": NOTIFY,
    "on_validate_end": NOTIFY,
    "on_test_start": NOTIFY,
    "on_test_step_end": NOTIFY,
    "on_test_end": NOTIFY,
    # Checkpoints.
    "on_save_start": NOTIFY,
    "on_save_end": NOTIFY,
    "on_load": NOTIFY,
    # Data.
    "preprocess": ROWS,
    "keep": ROWS,
    "encode": ROWS,
    "transform_image": SAMPLE,
    "transform_caption": SAMPLE,
    "transform_sample": SAMPLE,
    "collate": COLLATE,
    "transform_train_batch": TRANSFORM,
    "transform_validate_batch": TRANSFORM,
    "transform_test_batch": TRANSFORM,
    # State.
    "state_dict": STATE,
    "load_state_dict": STATE,
}

START = ("configure", "setup")  # part of an incarnation's opening
STEP = (
    "on_step_start", "on_backward_end", "on_substep_end", "on_optimizer_step_start", "on_optimizer_step_end",
    "on_step_end", "should_stop", "on_log",
)  # fmt: skip
"""Notify hooks inside a step, whose replies are collected at a later, fixed step."""
WAITED = tuple(hook for hook, kind in HOOKS.items() if kind == NOTIFY and hook not in STEP + START)
"""Notify hooks that the ranks wait for."""

EXCLUSIVE = ("encode", "collate")
"""Hooks that one plugin of a run can have: a row is encoded once, a batch is made once."""

HOOK_PREFIXES = ("on_", "transform_", "should_")
CLAIMS = ("train_batch", "validate_batch", "test_batch", "should_stop")


def edit_distance(a: str, b: str, swaps: bool = False) -> int:
    """Insertions, deletions and replacements that turn `a` into `b`; with `swaps`, two neighbours swapped count one."""
    before, row = [], list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last = row
        row = [i]
        for j, y in enumerate(b, 1):
            best = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (x != y))
            if swaps and i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                best = min(best, before[j - 2] + 1)
            row.append(best)
        before = last
    return row[len(b)]


def nearest(name: str, names: Iterable[str]) -> str:
    """The closest of `names`; empty when none is (distance above a third of the length, at least 2)."""
    best, best_distance = "", max(2, len(name) // 3) + 1
    for candidate in names:
        distance = edit_distance(name, candidate)
        if distance < best_distance:
            best, best_distance = candidate, distance
    return best


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """``; did you mean "x"?``, or nothing: the end of a sentence."""
    found = nearest(name, names)
    return f'; did you mean "{found}"?' if found else ""


def nearest_hook(name: str) -> str:
    """The hook that begins like `name`, which has one of HOOK_PREFIXES, and shares most of its letters in order."""
    prefix = next(prefix for prefix in HOOK_PREFIXES if name.startswith(prefix))
    alike = (hook for hook in HOOKS if hook.startswith(prefix))
    return max(alike, key=lambda hook: difflib.SequenceMatcher(None, name, hook).ratio())


def mistaken_hook(name: str) -> str:
    """The hook that a method called `name` was probably meant to be; empty when `name` is fine.

    A hook of a few letters has many honest neighbours ("setup" and "step", "encode" and "decode"), so those count only
    one slip of the fingers; names with a leading underscore are the plugin's own.
    """
    if name in HOOKS or name.startswith("_"):
        return ""
    slips = ((edit_distance(name, hook, swaps=True), hook) for hook in HOOKS)
    close = [(distance, hook) for distance, hook in slips if distance <= (1 if len(hook) < 7 else 2)]
    return min(close)[1] if close else ""
