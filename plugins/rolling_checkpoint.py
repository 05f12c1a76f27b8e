"""Saves at fractions of an epoch, so that an interrupted run loses little (EveryDream2's InterruptiblePlugin).

    plugins:
      - use: rolling_checkpoint
        with: {every_n_epochs: 0.25, keep: 2}

They are checkpoints like any other: a run is resumed from the newest, and `checkpoint.keep` removes old ones.
"""

import math
from typing import List, Optional

from bulkhead import Plugin


def save_steps(every_n_epochs: float, epoch: int, epoch_length: int) -> List[int]:
    """The steps of an epoch, from 0, at whose end is saved.

    From 1 on: the last step of every so many epochs.  Below: the epoch is cut into round(1/every_n_epochs) parts of as
    equal a length as whole steps allow, at most one for each step.
    """
    if epoch_length < 1:
        return []
    if every_n_epochs >= 1:
        return [epoch_length - 1] if (epoch + 1) % every_n_epochs == 0 else []
    parts = max(1, min(epoch_length, round(1 / every_n_epochs)))
    length = epoch_length / parts
    return [math.ceil((i + 1) * length) - 1 for i in range(parts)]


class RollingCheckpoint(Plugin):
    stateless = True

    def __init__(self, every_n_epochs: float = 1.0, keep: Optional[int] = None):
        """every_n_epochs: a whole number from 1 on, or a fraction of an epoch above 0.

        keep: newest checkpoints that are kept (all: 0), in place of the run file's `checkpoint.keep`; null leaves that.
        """
        if not every_n_epochs > 0 or (every_n_epochs >= 1 and every_n_epochs != int(every_n_epochs)):
            raise ValueError(
                f"every_n_epochs must be a whole number from 1 on or a fraction above 0, not {every_n_epochs}"
            )
        if keep is not None and keep < 0:
            raise ValueError(f"keep must be at least 0, not {keep}")
        self.every_n_epochs, self.keep = every_n_epochs, keep

    def configure(self, config, ctx):
        return {} if self.keep is None else {"checkpoint.keep": self.keep}

    def on_step_start(self, ctx):
        # Asked for here, not in on_step_end, it is done at the end of this very step.
        if ctx.step_in_epoch in save_steps(self.every_n_epochs, ctx.epoch, ctx.epoch_length):
            ctx.control.save()
