"""Transforms that do to shared memory what a careless plugin may do."""

import ctypes
import json
import os

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
