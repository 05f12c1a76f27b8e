"""Halts a run at a chosen place, so that a test can do its harm just there.

The test makes the named pipe; opening it for writing succeeds once the plugin waits at the place, and closing it
lets the plugin go on.  The place is passed once, whatever is restarted.
"""

import os

from bulkhead import Plugin


class Gate(Plugin):
    def __init__(self, pipe: str, step: int, rank: int = 0):
        self.pipe, self.step, self.rank = pipe, step, rank

    def on_step_end(self, ctx):
        if ctx.global_step != self.step or ctx.rank != self.rank or os.path.exists(self.pipe + ".passed"):
            return
        with open(self.pipe) as pipe:
            pipe.read()
        open(self.pipe + ".passed", "w").close()
