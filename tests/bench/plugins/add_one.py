"""Adds one to every element of "x", in place: what bench_dataplane calls."""

from bulkhead import Plugin


class AddOne(Plugin):
    """With numpy."""

    stateless = True

    def on_step_end(self, ctx):
        pass

    def transform_train_batch(self, batch, ctx):
        x = batch.mutable("x")
        x += 1


class AddOneTorch(Plugin):
    """With torch, on one thread."""

    stateless = True

    def setup(self, ctx):
        import torch

        torch.set_num_threads(1)

    def transform_train_batch(self, batch, ctx):
        batch.torch().mutable("x").add_(1)
