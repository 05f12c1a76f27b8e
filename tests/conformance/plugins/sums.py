"""Writes the sum of all weights to RUN/sums-RANK: when training begins, at each epoch's end, before training ends."""

import os

from bulkhead import Plugin


class Sums(Plugin):
    def _write(self, ctx):
        total = sum(float(array.astype("float64").sum()) for array in ctx.weights().values())
        with open(os.path.join(ctx.run_dir, f"sums-{ctx.rank}"), "a") as file:
            file.write(f"{total!r}\n")

    def on_train_start(self, ctx):
        self._write(ctx)

    def on_epoch_end(self, ctx):
        self._write(ctx)

    def on_train_end(self, ctx):
        self._write(ctx)
