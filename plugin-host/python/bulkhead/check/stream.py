"""The calls of a check, in the order of a run's stream (protocol/README.md, "The stream of a plugin process").

Two incarnations: one trains and saves, the other loads that state, ends the run and tests.  Pure functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator

STEPS_IN_EPOCH = 2
_MICRO_BATCHES = 2
_VALIDATION_BATCHES = 2
_CHUNKS = 2
STAGES = ("transform_image", "transform_caption", "transform_sample", "collate", "transform_train_batch")


@dataclass(frozen=True)
class Place:
    """One call: which hook, at which step, of which micro-batch."""

    hook: str
    step: int
    micro: int = 0


def training(steps: int) -> Iterator[Place]:
    """From the start to the last save."""
    for hook in ("preprocess", "keep", "encode"):
        for chunk in range(_CHUNKS):
            yield Place(hook, 0, chunk)
    yield Place("on_train_start", 0)
    for step in range(steps):
        if step % STEPS_IN_EPOCH == 0:
            yield Place("on_epoch_start", step)
        yield from _step(step)
        if (step + 1) % STEPS_IN_EPOCH == 0 or step + 1 == steps:
            yield from _evaluation("validate", step + 1)
            yield from _save(step + 1)
            yield Place("on_epoch_end", step + 1)


def resumed(steps: int) -> Iterator[Place]:
    """After the state was loaded: the end of the run, the test, a failure."""
    yield Place("on_load", steps)
    yield from _step(steps)
    yield Place("on_train_end", steps + 1)
    yield from _save(steps + 1)
    yield from _evaluation("test", steps + 1)
    yield Place("on_exception", steps + 1)


def _step(step: int) -> Iterator[Place]:
    yield Place("on_step_start", step)
    for micro in range(_MICRO_BATCHES):
        for hook in STAGES:
            yield Place(hook, step, micro)
    for micro in range(_MICRO_BATCHES):
        yield Place("on_backward_end", step, micro)
        if micro + 1 < _MICRO_BATCHES:
            yield Place("on_substep_end", step, micro)
    for hook in ("on_optimizer_step_start", "on_optimizer_step_end", "on_step_end", "should_stop", "on_log"):
        yield Place(hook, step)


def _evaluation(what: str, step: int) -> Iterator[Place]:
    yield Place(f"on_{what}_start", step)
    for micro in range(_VALIDATION_BATCHES):
        yield Place("collate", step, micro)
        yield Place(f"transform_{what}_batch", step, micro)
        yield Place(f"on_{what}_step_end", step, micro)
    yield Place(f"on_{what}_end", step)


def _save(step: int) -> Iterator[Place]:
    yield Place("on_save_start", step)
    yield Place("state_dict", step)
    yield Place("on_save_end", step)
