"""Writes down every call, as witness.py does, and does what its script says; actor.cpp is the same in C++.

A line of the script is "DOES HOOK STEP RANK [VALUE]"; STEP (ctx.global_step) and RANK may be * for any.

stop stop_epoch save validate log   ctx.control's
set       ctx.set: VALUE is NAME=NUMBER
change    returned from configure: VALUE is KEY=NUMBER
yes       returned from should_stop
expected  raises what `raises` names
fail      raises something else
die       SIGKILL, once in a run
sleep     VALUE seconds
scale     features · VALUE, in a transform
take      the first VALUE rows of each tensor, in a transform
append    VALUE behind the caption
"""

import os
import pathlib
import signal
import time
from typing import List

from witness import Witness

import bulkhead

CARRIED = {"a": 1, "b": 2.0, "c": "x"}


class Expected(Exception):
    pass


class Actor(Witness):
    raises = (Expected,)

    def __init__(self, script: List[str] = ()):
        self.script = [line.split(" ", 4) for line in script]

    def _scripted(self, hook, ctx):
        """(what, VALUE) of each line for this place."""
        for does, at, step, rank, *value in self.script:
            if at == hook and step in ("*", str(ctx.global_step)) and rank in ("*", str(ctx.rank)):
                yield does, "".join(value)

    def _see(self, hook, ctx, **more):
        super()._see(hook, ctx, **more)
        for does, value in self._scripted(hook, ctx):
            if does in ("stop", "stop_epoch", "save", "validate", "log"):
                getattr(ctx.control, does)(*(["the actor says so"] if does == "stop" else []))
            elif does == "set":
                name, number = value.split("=")
                ctx.set(name, float(number) if name == "lr" else int(number))
            elif does == "expected":
                raise Expected("as foreseen")
            elif does == "fail":
                raise KeyError("nobody foresaw this")
            elif does == "sleep":
                time.sleep(float(value))
            elif does == "die":
                self._die_once(ctx)

    def _die_once(self, ctx):
        mark = pathlib.Path(ctx.run_dir, "witness", f"{bulkhead.facts().plugin}-{ctx.rank}.died")
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def _transform(self, hook, batch, ctx):
        self._see(hook, ctx, rows=len(batch[next(iter(batch))]))
        for does, value in self._scripted(hook, ctx):
            if does == "scale":
                batch.mutable("features")[...] *= float(value)
            if does == "take":
                for name in list(batch):
                    batch[name] = batch[name][: int(value)]

    def configure(self, config, ctx):
        self._see("configure", ctx)
        pairs = [value.split("=") for does, value in self._scripted("configure", ctx) if does == "change"]
        return {key: float(number) for key, number in pairs}

    def transform_train_batch(self, batch, ctx):
        self._transform("transform_train_batch", batch, ctx)

    def transform_validate_batch(self, batch, ctx):
        self._transform("transform_validate_batch", batch, ctx)

    def transform_test_batch(self, batch, ctx):
        self._transform("transform_test_batch", batch, ctx)

    def transform_image(self, image, ctx):
        self._see("transform_image", ctx, sample=ctx.sample, path=ctx.path)

    def transform_caption(self, caption, ctx):
        self._see("transform_caption", ctx, sample=ctx.sample, path=ctx.path, caption=caption)
        return caption + "".join(value for does, value in self._scripted("transform_caption", ctx) if does == "append")

    def transform_sample(self, sample, ctx):
        self._see("transform_sample", ctx, sample=ctx.sample, path=ctx.path, caption=sample.caption)

    def should_stop(self, ctx):
        self._see("should_stop", ctx)
        return any(does == "yes" for does, _ in self._scripted("should_stop", ctx))

    def on_exception(self, ctx):
        self._see("on_exception", ctx, exception=ctx.exception)

    def state_dict(self, ctx):
        self._see("state_dict", ctx)
        return CARRIED

    def load_state_dict(self, state, ctx):
        self._see("load_state_dict", ctx, state=state)
