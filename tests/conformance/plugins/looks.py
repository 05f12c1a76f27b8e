"""Looks whether a checkpoint is there when its writing begins and when it ends, and says so in RUN/looks-RANK."""

import os

from bulkhead import Plugin


class Looks(Plugin):
    def _look(self, hook, ctx):
        found = os.path.isdir(os.path.join(ctx.run_dir, "checkpoints", f"step-{ctx.global_step:08}"))
        with open(os.path.join(ctx.run_dir, f"looks-{ctx.rank}"), "a") as file:
            file.write(f"{hook} {ctx.global_step} {found}\n")

    def on_save_start(self, ctx):
        self._look("start", ctx)

    def on_save_end(self, ctx):
        self._look("end", ctx)
