"""Stops training when a validation metric has not improved for some validations or saves.

    plugins:
      - use: early_stop
        with: {patience: 3, min_delta: 0.0, metric: loss, greater: false, when: validate}

Better is strictly better.  Where the metric is never reported it never stops, and says so once in the log.  Its state
(best value, times since) survives crashes and resumes.
"""

import math

from bulkhead import Plugin

UNITS = {"validate": "validations", "save": "saves"}


class EarlyStop(Plugin):
    def __init__(
        self,
        patience: int = 3,
        min_delta: float = 0.0,
        metric: str = "loss",
        greater: bool = False,
        when: str = "validate",
    ):
        """patience: validations (or saves) in a row without a better value, ≥ 1.

        min_delta: how much better a value must be to count, ≥ 0.
        metric: its name in the validation, e.g. "loss" or "accuracy".
        greater: true, greater is better; false, less is.
        when: "validate", each validation counts; "save", each save does, with the best value of the validations so far.
        """
        if patience < 1:
            raise ValueError(f"patience must be at least 1, not {patience}")
        if not min_delta >= 0:
            raise ValueError(f"min_delta must be at least 0, not {min_delta}")
        if when not in UNITS:
            raise ValueError(f'when must be {" or ".join(UNITS)}, not "{when}"')
        self.patience, self.min_delta, self.metric, self.greater, self.when = patience, min_delta, metric, greater, when
        worst = -math.inf if greater else math.inf
        self.best, self.bad = worst, 0
        self.seen = worst  # best of all validations: what a save is judged by
        self.measured = self.warned = False

    def setup(self, ctx):
        if ctx.scope == "node":  # its process hears of a validation once for each rank
            raise ValueError("early_stop counts validations, so it needs scope rank or job, not node")

    def on_validate_end(self, ctx):
        value = ctx.metrics.get(self.metric)
        if value is None:
            self._warn(ctx, f"a validation reports {', '.join(sorted(ctx.metrics)) or 'nothing'}")
            return
        self.measured = True
        if self._better(value, self.seen, 0):
            self.seen = value
        if self.when == "validate":
            self._judge(value, ctx)

    def on_save_end(self, ctx):
        if self.when != "save":
            return
        if self.measured:
            self._judge(self.seen, ctx)
        else:
            self._warn(ctx, "there was no validation before this save")

    def _judge(self, value, ctx):
        if self._better(value, self.best, self.min_delta):
            self.best, self.bad = value, 0
        else:
            self.bad += 1
        if self.bad >= self.patience:
            ctx.control.stop(f"no better {self.metric} in {self.bad} {UNITS[self.when]} (best {self.best:.6g})")

    def _better(self, value, than, by):
        """A NaN is never better."""
        return value > than + by if self.greater else value < than - by

    def _warn(self, ctx, why):
        if not self.warned and ctx.is_main:
            ctx.log(f'early_stop has no "{self.metric}" to judge by: {why}')
        self.warned = True
