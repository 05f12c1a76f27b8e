"""Transforms that do to shared memory what a careless plugin may do."""

import ctypes
import fcntl
import json
import os
import signal

import numpy as np

from bulkhead import Plugin


class Halve(Plugin):
    """Well-behaved; tells how many segments of shared memory it has mapped."""

    def transform_train_batch(self, batch, ctx):
        batch.mutable("features")[:] *= 0.5

    def on_train_end(self, ctx):
        with open("/proc/self/maps", encoding="utf-8") as maps:
            segments = sum("bulkhead-arena" in line for line in maps)
        with open(os.path.join(ctx.run_dir, f"segments-{ctx.rank}.json"), "w", encoding="utf-8") as file:
            json.dump(segments, file)


class Keeps(Plugin):
    """Goes on looking at every input, and finds at the end that each is what it was."""

    transient = {"views", "copies"}

    def __init__(self):
        self.views, self.copies = [], []

    def transform_train_batch(self, batch, ctx):
        self.views.append(batch["features"])
        self.copies.append(batch["features"].copy())
        batch["features"] = batch["features"] * np.float32(0.5)

    def on_train_end(self, ctx):
        assert len(self.views) > 20
        for view, copy in zip(self.views, self.copies):
            assert np.array_equal(view, copy)


class WritesIntoItsInput(Plugin):
    """Once, through a bare address, as a C extension might."""

    def transform_train_batch(self, batch, ctx):
        features = batch["features"]
        batch["features"] = features * np.float32(0.5)
        mark = os.path.join(ctx.run_dir, f"written-{ctx.rank}")
        if ctx.global_step == 7 and not os.path.exists(mark):
            with open(mark, "w", encoding="utf-8"):
                ctypes.memset(features.__array_interface__["data"][0], 0xFF, features.nbytes)


class DiesHalfway(Plugin):
    """Halves a batch where it lies in the rank's memory; at some steps it dies when half of that is done, or before.

    `times`: how often a step is fatal.  It says in RUN/in_place-RANK how many batches it was given for itself.
    """

    def __init__(self, steps: list, times: int, before: bool = False):
        self.steps, self.times, self.before, self.given = steps, times, before, 0

    def transform_train_batch(self, batch, ctx):
        features = batch.mutable("features")
        self.given += _is_the_ranks(features)
        half = len(features) // 2
        died = os.path.join(ctx.run_dir, f"died-{ctx.rank}-{ctx.global_step}")
        deaths = os.path.getsize(died) if os.path.exists(died) else 0
        fatal = ctx.global_step in self.steps and deaths < self.times
        if not fatal or not self.before:
            features[:half] *= 0.5
        if fatal:
            with open(died, "a", encoding="utf-8") as file:
                file.write("+")
            os.kill(os.getpid(), signal.SIGKILL)
        features[half:] *= 0.5

    def on_train_end(self, ctx):
        with open(os.path.join(ctx.run_dir, f"in_place-{ctx.rank}"), "w", encoding="utf-8") as file:
            file.write(str(self.given))


def _is_the_ranks(array):
    """Whether it lies in memory whose file this process cannot have made: one that others may write to."""
    address = array.__array_interface__["data"][0]
    with open("/proc/self/maps", encoding="utf-8") as maps:
        for line in maps:
            first, last = (int(part, 16) for part in line.split()[0].split("-"))
            if first <= address < last:
                break
    with open(f"/proc/self/map_files/{line.split()[0]}", "rb") as file:
        return not fcntl.fcntl(file, fcntl.F_GET_SEALS) & 0x10  # F_SEAL_FUTURE_WRITE


class WritesAfterItsReply(Plugin):
    """Into the labels it has given away, numbers that no table has."""

    def __init__(self):
        self.mine = None

    def transform_train_batch(self, batch, ctx):
        features, labels = batch.mutable("features"), batch.mutable("labels")
        features[:] *= 0.5
        self.mine = labels

    def on_step_end(self, ctx):
        self.mine[:] = 1 << 40
