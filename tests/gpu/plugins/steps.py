"""What the tests of steps on a GPU look with."""

import hashlib

from bulkhead import Plugin


class Weights(Plugin):
    """Writes down the weights and the loss that it sees at the end of every seventh step."""

    stateless = True

    def __init__(self, path: str):
        self.path = path

    def on_step_end(self, ctx):
        if ctx.global_step % 7:
            return
        digest, weights = hashlib.sha256(), ctx.weights()
        for name in sorted(weights):
            digest.update(weights[name].tobytes())
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(f"{ctx.global_step} {ctx.metrics['loss']:.9f} {digest.hexdigest()}\n")


class Listen(Plugin):
    """Wants to hear of something inside a step: steps cannot be recorded then."""

    stateless = True

    def on_backward_end(self, ctx):
        pass


class Stop(Plugin):
    """Ends the run after that many steps."""

    stateless = True

    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, ctx):
        if ctx.global_step == self.step:
            ctx.control.stop("as asked")


class Notify(Plugin):
    """Hears of every step, and reads its numbers."""

    stateless = True

    def on_step_start(self, ctx):
        self.loss = ctx.metrics.get("loss")

    def on_step_end(self, ctx):
        self.loss = ctx.metrics["loss"]

    def should_stop(self, ctx):
        return self.loss is None
