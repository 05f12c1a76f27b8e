"""Batches that float16 cannot hold."""

from bulkhead import Plugin


class Overflow(Plugin):
    """Makes the features of the batches of these steps a million times as large."""

    stateless = True

    def __init__(self, steps: list):
        self.steps = steps

    def transform_train_batch(self, batch, ctx):
        if ctx.global_step in self.steps:
            batch.mutable("features")[...] *= 1e6
