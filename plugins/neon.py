"""Turns training around: writes base − α (trained − base), the weights on the far side of the start (NEON).

    plugins:
      - use: neon
        with: {alpha: 1.0, path: neon.safetensors, load: false}

Train on what a model should get away from, e.g. its own samples, and use the result.  The base is what the model was
when training began or, in a run resumed from a checkpoint that does not know this plugin, at the resume; rank 0 holds
it, and every checkpoint with it.  Base 1.0, trained 1.5 and α 1 give 0.5.
(Alemohammad, Wang, Baraniuk: "Neon: Negative Extrapolation From Self-Training Improves Image Generation", 2025, as in
damian0815's fork of EveryDream2.)
"""

import os

import _weight_files

from bulkhead import Plugin


def extrapolated(base: dict, trained: dict, alpha: float) -> dict:
    """Name → base − α (trained − base), in the type of the trained weights."""
    return {name: (base[name] - alpha * (array - base[name])).astype(array.dtype) for name, array in trained.items()}


class Neon(Plugin):
    def __init__(self, alpha: float = 1.0, path: str = "neon.safetensors", load: bool = False):
        """alpha: how far to go beyond the base, > 0, in units of the way that training went.

        path: of the result, within the run's directory; written at the end of training.
        load: the result also becomes the model's weights, before the final checkpoint and the test.
        """
        if not alpha > 0:
            raise ValueError(f"alpha must be greater than 0, not {alpha}")
        self.alpha, self.path, self.load = alpha, _weight_files.check_path(path), load
        self.base = None

    def on_train_start(self, ctx):
        if ctx.is_main:
            self.base = ctx.weights()

    def on_load(self, ctx):
        if ctx.is_main and self.base is None:
            self.base = ctx.weights()

    def on_train_end(self, ctx):
        if not ctx.is_main:
            return
        result = extrapolated(self.base, ctx.weights(), self.alpha)
        _weight_files.write(os.path.join(ctx.run_dir, self.path), result, plugin="neon", alpha=self.alpha)
        if self.load:
            ctx.load_weights(result)
