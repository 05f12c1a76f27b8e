"""Asks for something at one hook, one step and one rank."""

from bulkhead import Plugin


class Conductor(Plugin):
    def __init__(self, ask: str, hook: str, step: int, rank: int = 0):
        self.ask, self.hook, self.step, self.rank = ask, hook, step, rank

    def _at(self, hook, ctx):
        if (hook, ctx.global_step, ctx.rank) == (self.hook, self.step, self.rank):
            getattr(ctx.control, self.ask)(*(["the conductor says so"] if self.ask == "stop" else []))

    def on_step_start(self, ctx):
        self._at("on_step_start", ctx)

    def transform_train_batch(self, batch, ctx):
        self._at("transform_train_batch", ctx)

    def on_step_end(self, ctx):
        self._at("on_step_end", ctx)

    def should_stop(self, ctx):
        return (self.hook, self.step, self.rank) == ("should_stop", ctx.global_step, ctx.rank)

    def on_epoch_start(self, ctx):
        self._at("on_epoch_start", ctx)

    def on_epoch_end(self, ctx):
        self._at("on_epoch_end", ctx)

    def on_validate_end(self, ctx):
        self._at("on_validate_end", ctx)
