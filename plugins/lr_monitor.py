"""Adds to metrics.jsonl how the learning rate and the gradient norm moved between two lines.

    plugins:
      - use: lr_monitor
        scope: job
        with: {every: 10}

metrics.jsonl itself holds `lr` and `grad_norm` of single steps; these are over all steps of a window: `lr_min`,
`lr_max`, `grad_norm_mean` and `grad_norm_max`, in the next line that is written.  A spike between two lines shows.
Norms that are infinite or no number are left out and counted: `grad_norm_not_finite`.
"""

import math

from bulkhead import Plugin


def summary(rates: list, norms: list) -> dict:
    """Metrics of a window's learning rates and gradient norms."""
    found = {"lr_min": min(rates), "lr_max": max(rates)}
    finite = [norm for norm in norms if math.isfinite(norm)]
    if finite:
        found.update(grad_norm_mean=sum(finite) / len(finite), grad_norm_max=max(finite))
    if len(finite) < len(norms):
        found["grad_norm_not_finite"] = len(norms) - len(finite)
    return found


class LrMonitor(Plugin):
    def __init__(self, every: int = 10):
        """every: steps in a window, ≥ 1; best the run's `train.log_every`."""
        if every < 1:
            raise ValueError(f"every must be at least 1, not {every}")
        self.every = every
        self.rates, self.norms = [], []

    def on_step_end(self, ctx):
        if not ctx.is_main:
            return
        self.rates.append(ctx.lr)
        self.norms.append(ctx.grad_norm)
        if len(self.rates) >= self.every:
            ctx.log_metrics(summary(self.rates, self.norms))
            self.rates, self.norms = [], []
