"""Plugins that fail for good: the tools of the tests of policies."""

import json
import os
import signal

from bulkhead import Plugin


def _note(ctx, plugin, **fields):
    """One line per call in RUN/calls/, written before whatever happens next."""
    folder = os.path.join(ctx.run_dir, "calls")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, f"{plugin}-{ctx.rank}.jsonl"), "a") as file:
        file.write(json.dumps(fields) + "\n")


class Mortal(Plugin):
    """Dies on one rank in every on_step_end from a step on; until then it changes each batch."""

    def __init__(self, from_step: int, rank: int = 0, transforms: bool = True):
        self.from_step, self.rank, self.transforms, self.seen = from_step, rank, transforms, 0

    def transform_train_batch(self, batch, ctx):
        self.seen += 1
        _note(ctx, "mortal", hook="transform", step=ctx.global_step)
        if self.transforms:
            batch.mutable("features")[...] *= 1 + 0.01 * (self.seen % 5)

    def on_step_end(self, ctx):
        _note(ctx, "mortal", hook="on_step_end", step=ctx.global_step)
        if ctx.rank == self.rank and ctx.global_step >= self.from_step:
            os.kill(os.getpid(), signal.SIGKILL)


class Picky(Plugin):
    """Dies of the batches of one step, whenever it sees them; or raises, or answers something impossible."""

    def __init__(self, step: int, how: str = "die", rank: int = 0):
        self.step, self.how, self.rank = step, how, rank

    def transform_train_batch(self, batch, ctx):
        if ctx.global_step == self.step and ctx.rank == self.rank:
            if self.how == "die":
                os._exit(9)
            if self.how == "raise":
                raise ValueError("this batch tastes of tin")
            batch["features"] = batch["features"][:, :-1]
        batch.mutable("features")[...] *= 1.01


class Complains(Plugin):
    """Raises in a notify hook."""

    def on_step_end(self, ctx):
        if ctx.global_step == 4:
            raise ValueError("I do not like step four")
