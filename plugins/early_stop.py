"""Stops training when the validation loss has not improved for some validations.

    plugins:
      - use: early_stop
        with: {patience: 3, min_delta: 0.0}

Its state (best loss, validations since) survives crashes and resumes.
"""

from bulkhead import Plugin


class EarlyStop(Plugin):
    def __init__(self, patience: int = 3, min_delta: float = 0.0):
        """patience: validations in a row without a better loss, ≥ 1.

        min_delta: how much lower a loss must be to count as better, ≥ 0.
        """
        if patience < 1:
            raise ValueError(f"patience must be at least 1, not {patience}")
        if not min_delta >= 0:
            raise ValueError(f"min_delta must be at least 0, not {min_delta}")
        self.patience, self.min_delta = patience, min_delta
        self.best, self.bad = float("inf"), 0

    def on_validate_end(self, ctx):
        loss = ctx.metrics.get("loss")
        if loss is None:
            return
        if loss < self.best - self.min_delta:  # a NaN is never better
            self.best, self.bad = loss, 0
        else:
            self.bad += 1
        if self.bad >= self.patience:
            ctx.control.stop(f"no better loss in {self.bad} validations (best {self.best:.6g})")
