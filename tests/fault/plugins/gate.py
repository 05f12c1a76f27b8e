"""Halts a run at a chosen place, so that a test can do its harm just there.

The test makes the named pipe; opening it for writing succeeds once the plugin waits at the place, and each byte that
is written lets one visitor pass.
"""

import os

from bulkhead import Plugin


class Gate(Plugin):
    def __init__(self, pipe: str, step: int, rank: int = 0):
        self.pipe, self.step, self.rank = pipe, step, rank

    def on_step_end(self, ctx):
        if ctx.global_step == self.step and ctx.rank == self.rank:
            pipe = os.open(self.pipe, os.O_RDONLY)
            os.read(pipe, 1)
            os.close(pipe)
