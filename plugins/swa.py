"""Averages the weights of the last part of training: stochastic weight averaging.

    plugins:
      - use: swa
        with: {start_epoch: 15}            # or {start_step: 1000, every: 100}

All models that are counted count alike.  At the end of training the average is written and, with `load: true`, becomes
the model.  (P. Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", 2018; the running
mean as in torch.optim.swa_utils.)  It works best with a learning rate that stays high.
"""

import os
from typing import Optional

import _weight_files
import numpy as np

from bulkhead import Plugin


class Swa(Plugin):
    def __init__(
        self,
        start_epoch: Optional[int] = None,
        start_step: Optional[int] = None,
        every: int = 1,
        path: str = "swa.safetensors",
        load: bool = False,
    ):
        """start_epoch: the weights at the end of this epoch (from 0) are the first that count; or
        start_step: those after so many steps, ≥ 1.  One of the two must be given.

        every: epochs, or steps, from one that counts to the next, ≥ 1; each costs a copy of all weights.
        path: of the average, within the run's directory; written at the end of training.
        load: the average also becomes the model's weights, before the final checkpoint and the test.
        """
        if (start_epoch is None) == (start_step is None):
            raise ValueError("one of start_epoch and start_step must be given, and not both")
        for name, value, least in (("start_epoch", start_epoch, 0), ("start_step", start_step, 1), ("every", every, 1)):
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")
        self.start_epoch, self.start_step, self.every = start_epoch, start_step, every
        self.path, self.load = _weight_files.check_path(path), load
        self.average, self.models = None, 0

    def on_epoch_end(self, ctx):
        if ctx.is_main and self._counts(ctx.epoch, self.start_epoch):
            self._add(ctx.weights())

    def on_step_end(self, ctx):
        if ctx.is_main and self._counts(ctx.global_step + 1, self.start_step):
            self._add(ctx.weights())

    def on_train_end(self, ctx):
        if not ctx.is_main:
            return
        if not self.models:
            ctx.log("swa: training ended before its start, so there is nothing to average")
            return
        file = os.path.join(ctx.run_dir, self.path)
        _weight_files.write(file, self.average, plugin="swa", models=self.models)
        if self.load:
            ctx.load_weights(self.average)

    def _counts(self, now, start):
        return start is not None and now >= start and (now - start) % self.every == 0

    def _add(self, weights):
        self.models += 1
        share = np.float32(1 / self.models)
        before = weights if self.average is None else self.average
        self.average = {name: before[name] + share * (array - before[name]) for name, array in weights.items()}
