"""Plugins that several ranks share, or that speak to themselves on other ranks."""

import json
import os
import signal

import bulkhead
from bulkhead import Plugin


def write(ctx, **fields):
    """One line in RUN/shared/NAME.jsonl: what is written by a process that dies may be there twice."""
    folder = os.path.join(ctx.run_dir, "shared")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, f"{bulkhead.facts().plugin}.jsonl"), "a") as file:
        file.write(json.dumps({"pid": os.getpid(), **fields}) + "\n")


class Ledger(Plugin):
    """Counts every call of every rank; its count is its state.  Dies once in on_step_end of a step and rank."""

    def __init__(self, die_at=None, rank=0):
        self.die_at, self.rank, self.count = die_at, rank, 0

    def _see(self, hook, ctx):
        self.count += 1
        if not ctx.replaying:
            write(ctx, hook=hook, step=ctx.global_step, rank=ctx.rank, count=self.count, loss=ctx.metrics.get("loss"),
                  local_rank=ctx.local_rank, is_main=ctx.is_main, draw=ctx.rng.uniform())  # fmt: skip

    def on_step_end(self, ctx):
        marker = os.path.join(ctx.run_dir, "ledger-died")
        if (ctx.global_step, ctx.rank) == (self.die_at, self.rank) and not os.path.exists(marker):
            open(marker, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        self._see("on_step_end", ctx)

    def on_validate_step_end(self, ctx):
        self._see("on_validate_step_end", ctx)

    def on_epoch_end(self, ctx):
        self._see("on_epoch_end", ctx)


class Tilt(Plugin):
    """Scales each batch by a number that depends on the rank whose it is."""

    stateless = True

    def transform_train_batch(self, batch, ctx):
        write(ctx, hook="transform_train_batch", step=ctx.global_step, rank=ctx.rank)
        batch.mutable("features")[...] *= 1 + 0.1 * ctx.rank + 0.01 * ctx.rng.uniform()

    def on_step_end(self, ctx):
        write(ctx, hook="on_step_end", step=ctx.global_step, rank=ctx.rank)


class Remembers(Tilt):
    stateless = False


class Gathers(Plugin):
    """Gathers (rank, step) at each step's end and stops the run where what came is not what all ranks said.

    how: "" | die (before asking) | die_after (having asked) | silent (does not ask) | always (dies for ever)
    """

    def __init__(self, how="", step=5, rank=1):
        self.how, self.step, self.rank, self.total = how, step, rank, 0

    def on_step_end(self, ctx):
        here = (ctx.global_step, ctx.rank) == (self.step, self.rank)
        marker = os.path.join(ctx.run_dir, "gathers-died")
        first = here and not os.path.exists(marker)
        if self.how == "silent" and here:
            return
        if self.how == "always" and ctx.rank == self.rank and ctx.global_step >= self.step:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "die" and first:
            open(marker, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        said = ctx.all_gather([ctx.rank, ctx.global_step])
        if self.how == "die_after" and first:
            open(marker, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        again = ctx.all_gather(self.total)
        self.total += sum(value[1] for value in said if value is not None)
        if not ctx.replaying:
            write(ctx, rank=ctx.rank, step=ctx.global_step, said=said, again=again, total=self.total)
