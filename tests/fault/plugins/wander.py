"""Transforms that show everything that must come back after a death: seeds, state, order and what ctx says."""

import random

import numpy as np

from bulkhead import Plugin


class Wander(Plugin):
    """Adds noise that depends on all generators, on every batch before it, and on the step's facts."""

    def __init__(self, size: float = 0.01):
        self.size, self.trail = size, np.zeros(4)

    def on_step_end(self, ctx):
        self.trail[0] += ctx.metrics["loss"]

    def transform_train_batch(self, batch, ctx):
        self.trail[1] = 0.9 * self.trail[1] + ctx.rng.uniform() + random.random() + np.random.random()
        self.trail[2] += ctx.lr + ctx.grad_norm
        self.trail[3] += batch["features"].mean()
        batch.mutable("features")[...] += self.size * np.tanh(self.trail.sum())
