"""Trains the first n epochs again and again from the same start, and averages what comes out.

    train: {max_epochs: 20}
    plugins:
      - use: repeat_first_n
        with: {n_epochs: 5}

makes four cycles of five epochs, each from the weights at the start of training with a fresh optimizer, each with the
learning rates of the first; the data order goes on, so that the cycles differ.  At the end the average of the four is
loaded and written.  Final states 1.0 and 3.0 give 2.0.  (EveryDream2, damian0815's fork: RepeatTheFirstN.)
"""

import os

import _weight_files
import numpy as np

from bulkhead import Plugin


class RepeatFirstN(Plugin):
    raises = (ValueError,)  # weights that are not finite, or no start to go back to: no average will mend that

    def __init__(self, n_epochs: int, path: str = "repeat_first_n.safetensors"):
        """n_epochs: epochs in a cycle, ≥ 1; must divide the run's `train.max_epochs`, else the run is refused.

        path: of the average, within the run's directory.
        """
        if n_epochs < 1:
            raise ValueError(f"n_epochs must be at least 1, not {n_epochs}")
        self.n_epochs, self.path = n_epochs, _weight_files.check_path(path)
        self.initial, self.total, self.cycles = None, None, 0
        self.rates, self.position = [], 0  # of the first cycle's steps; steps of this cycle that are done

    def configure(self, config, ctx):
        epochs = config.get("train", {}).get("max_epochs", 0)
        if not epochs:
            raise ValueError("repeat_first_n needs train.max_epochs: it counts in epochs")
        if epochs % self.n_epochs:
            raise ValueError(f"train.max_epochs ({epochs}) must be a multiple of n_epochs ({self.n_epochs})")

    def on_train_start(self, ctx):
        if ctx.is_main:
            self.initial = ctx.weights()

    def on_load(self, ctx):
        if ctx.is_main and self.initial is None:
            raise ValueError("repeat_first_n was not there when training began, so it has no start to go back to")

    def on_step_start(self, ctx):
        # What is set here holds from the next step on.
        if ctx.is_main and self.cycles and self.position + 1 < len(self.rates):
            ctx.set("lr", self.rates[self.position + 1])

    def on_step_end(self, ctx):
        if ctx.is_main:
            if not self.cycles:
                self.rates.append(ctx.lr)
            self.position += 1

    def on_epoch_end(self, ctx):
        if not ctx.is_main or (ctx.epoch + 1) % self.n_epochs:
            return
        self._add(ctx.weights())
        self.position = 0
        if ctx.epoch + 1 < ctx.max_epochs:
            ctx.load_weights(self.initial)
            if self.rates:
                ctx.set("lr", self.rates[0])

    def on_train_end(self, ctx):
        if not ctx.is_main:
            return
        if not self.cycles:
            ctx.log("repeat_first_n: training ended within the first cycle, so there is nothing to average")
            return
        average = {name: (array / self.cycles).astype(np.float32) for name, array in self.total.items()}
        file = os.path.join(ctx.run_dir, self.path)
        _weight_files.write(file, average, plugin="repeat_first_n", cycles=self.cycles)
        ctx.load_weights(average)

    def _add(self, weights):
        for name, array in weights.items():
            if not np.isfinite(array).all():
                raise ValueError(f'repeat_first_n: "{name}" is not finite at the end of cycle {self.cycles}')
        # In float64, so that the average of equal weights is exactly them.
        before = self.total or dict.fromkeys(weights, np.float64(0))
        self.total = {name: before[name] + array.astype(np.float64) for name, array in weights.items()}
        self.cycles += 1
