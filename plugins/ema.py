"""Keeps an exponential moving average of the weights, and writes it with every checkpoint.

    plugins:
      - use: ema
        with: {decay: 0.999, every: 10, path: ema.safetensors, load: false}

After every `every` steps: average ← d · average + (1 − d) · weights with d = decay^every, so that `decay` means the
same whatever `every` is.  The average begins as the weights at the start of training; rank 0 holds it, in float32, and
every checkpoint with it.  (Polyak & Juditsky 1992; the exponential form as in Tarvainen & Valpola 2017.)
"""

import os

import _weight_files
import numpy as np

from bulkhead import Plugin


def moved(average: dict, weights: dict, share: float) -> dict:
    """Name → average + share · (weights − average), in float32."""
    share = np.float32(share)
    return {name: average[name] + share * (array - average[name]) for name, array in weights.items()}


class Ema(Plugin):
    def __init__(self, decay: float = 0.999, every: int = 10, path: str = "ema.safetensors", load: bool = False):
        """decay: share of the average that one step leaves, ≥ 0 and below 1.

        every: steps between updates, ≥ 1; each costs a copy of all weights, to the host's process.
        path: within the run's directory; written at each save, so it belongs to the newest checkpoint.
        load: at the end of training the average becomes the model's weights, before the final checkpoint and the test.
        """
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be at least 0 and below 1, not {decay}")
        if every < 1:
            raise ValueError(f"every must be at least 1, not {every}")
        self.decay, self.every, self.path, self.load = decay, every, _weight_files.check_path(path), load
        self.average = None

    def on_train_start(self, ctx):
        if ctx.is_main:
            self.average = ctx.weights()

    def on_step_end(self, ctx):
        if not ctx.is_main or (ctx.global_step + 1) % self.every:
            return
        weights = ctx.weights()
        # None: the run was resumed from a checkpoint of a run without this plugin.
        average = weights if self.average is None else self.average
        self.average = moved(average, weights, 1 - self.decay**self.every)

    def on_save_end(self, ctx):
        if ctx.is_main and self.average is not None and not ctx.replaying:
            file = os.path.join(ctx.run_dir, self.path)
            _weight_files.write(file, self.average, plugin="ema", decay=self.decay, step=ctx.global_step)

    def on_train_end(self, ctx):
        if self.load and self.average is not None:
            ctx.load_weights(self.average)
