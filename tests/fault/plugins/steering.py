"""Plugins that change the run while it trains."""

import json
import os

import numpy as np

import bulkhead
from bulkhead import Plugin


def note(ctx, **fields):
    folder = os.path.join(ctx.run_dir, "steering")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, f"{bulkhead.facts().plugin}-{ctx.rank}.jsonl"), "a") as file:
        file.write(json.dumps(fields) + "\n")


class Sets(Plugin):
    """ctx.set at one hook, step and rank; writes down the refusal, if any."""

    def __init__(self, name, value=None, hook="on_step_end", step=3, rank=0):
        self.name, self.value, self.hook, self.step, self.rank = name, value, hook, step, rank

    def _at(self, hook, ctx):
        if (hook, ctx.global_step, ctx.rank) != (self.hook, self.step, self.rank):
            return
        try:
            ctx.set(self.name, self.value)
        except ValueError as error:
            note(ctx, refused=str(error))

    def on_epoch_start(self, ctx):
        self._at("on_epoch_start", ctx)

    def on_step_start(self, ctx):
        self._at("on_step_start", ctx)

    def on_step_end(self, ctx):
        self._at("on_step_end", ctx)

    def on_validate_end(self, ctx):
        self._at("on_validate_end", ctx)


class Watches(Plugin):
    """Writes down every step: its micro-batches, its rate, what is logged, validated and saved."""

    def __init__(self):
        self.micro = {}

    def on_backward_end(self, ctx):
        note(ctx, hook="on_backward_end", step=ctx.global_step, micro=ctx.micro_batch)

    def on_step_end(self, ctx):
        note(ctx, hook="on_step_end", step=ctx.global_step, lr=ctx.lr, epoch=ctx.epoch)

    def on_log(self, ctx):
        note(ctx, hook="on_log", step=ctx.global_step)

    def on_validate_end(self, ctx):
        note(ctx, hook="on_validate_end", step=ctx.global_step)

    def on_save_end(self, ctx):
        note(ctx, hook="on_save_end", step=ctx.global_step)


class Passes(Plugin):
    """Leaves the batches as they are; its prefetch is what counts."""

    stateless = True

    def transform_train_batch(self, batch, ctx):
        pass


class Averages(Plugin):
    """An exponential mean of the weights, kept as state; dies at chosen steps."""

    def __init__(self, die_at=(), load_at=None, rank=0):
        self.die_at, self.load_at, self.rank, self.mean = list(die_at), load_at, rank, None

    def on_step_end(self, ctx):
        weights = ctx.weights()
        if self.mean is None:
            self.mean = {name: np.array(value) for name, value in weights.items()}
        for name, value in weights.items():
            self.mean[name] = 0.9 * self.mean[name] + 0.1 * value
        marker = os.path.join(ctx.run_dir, f"died-{ctx.global_step}")
        if ctx.global_step in self.die_at and ctx.rank == self.rank and not os.path.exists(marker):
            open(marker, "w").close()
            os._exit(3)
        if not ctx.replaying:
            note(ctx, step=ctx.global_step, sum=float(sum(float(value.sum()) for value in self.mean.values())))

    def on_epoch_end(self, ctx):
        if ctx.epoch == self.load_at and ctx.rank == self.rank:
            ctx.load_weights(self.mean)

    def on_train_end(self, ctx):
        weights = ctx.weights()
        note(ctx, weights=float(sum(float(value.sum()) for value in weights.values())))


class LoadsWrong(Plugin):
    """Hands back weights that do not fit."""

    def on_epoch_end(self, ctx):
        name, value = next(iter(ctx.weights().items()))
        ctx.load_weights({name: np.zeros(value.size + 1, dtype=value.dtype)})


class Pruned(Exception):
    pass


class Raises(Plugin):
    """Raises at one hook, step and rank; hears of the end."""

    raises = (Pruned,)

    def __init__(self, hook="on_step_end", step=3, rank=0, fatal=True):
        self.hook, self.step, self.rank, self.error = hook, step, rank, Pruned if fatal else KeyError

    def _at(self, hook, ctx):
        if (hook, ctx.global_step, ctx.rank) == (self.hook, self.step, self.rank):
            raise self.error("no better than the others")

    def on_step_end(self, ctx):
        self._at("on_step_end", ctx)

    def transform_train_batch(self, batch, ctx):
        self._at("transform_train_batch", ctx)

    def on_validate_end(self, ctx):
        self._at("on_validate_end", ctx)

    def on_exception(self, ctx):
        note(ctx, exception=ctx.exception)
