"""A plugin that dies, hangs or lies at a chosen place: the tool of the fault tests and the quickstart.

    plugins:
      - use: saboteur.py
        with: {how: segv, hook: on_step_end, step: [3, 7], rank: 0, times: 1}

how    segv abort kill exit0 exit3 raise hang stop (SIGSTOP) garbage (on the wire), and, for transform_*_batch,
       nan wrong_shape wrong_type
hook   any hook but encode and collate, which are a single plugin's, or __init__; a constructor has no step, so `step`
       is not looked at there
step   ctx.global_step, one or several; -1 is any
rank   ctx.rank; -1 is any
micro  ctx.micro_batch, in the hooks of one micro-batch (on_backward_end, on_substep_end, on_…_step_end of a validation
       or test, transforms), the chunk in preprocess and keep; -1 is any
ask    true: the hook first gathers from all ranks, then strikes
times  faults at each (hook, step, rank), counted over restarts by files in RUN_DIR/saboteur

When it lets a batch pass it changes it a little, as a function of how many it has seen and what it has gathered:
weights that equal those of an undisturbed run (times: 0) prove that its state came back exactly.
"""

import ctypes
import os
import signal
import sys
import threading
from typing import List, Union

import numpy as np

import bulkhead
from bulkhead import host
from bulkhead.hooks import EXCLUSIVE, HOOKS

PLACES = tuple(hook for hook in HOOKS if hook not in EXCLUSIVE)
FLOATS = ("float16", "float32", "float64")  # what it adds to
LIES = ("nan", "wrong_shape", "wrong_type")  # about the output, so they need one
WAYS = ("segv", "abort", "kill", "exit0", "exit3", "raise", "hang", "stop", "garbage") + LIES


def is_of_micro_batch(hook):
    """Called once for each micro-batch or chunk, or sample of it."""
    return hook.startswith("transform_") or hook in (
        "preprocess", "keep", "on_backward_end", "on_substep_end", "on_validate_step_end", "on_test_step_end",
    )  # fmt: skip


def may_ask(hook):
    """All ranks call it together, so that they can gather."""
    return hook == "should_stop" or (hook.startswith("on_") and hook != "on_exception")


class Saboteur(bulkhead.Plugin):
    def __init__(
        self,
        how: str = "segv",
        hook: str = "on_step_end",
        step: Union[int, List[int]] = 0,
        rank: int = 0,
        micro: int = 0,
        ask: bool = False,
        times: int = 1,
    ):
        if how not in WAYS:
            raise ValueError(f'how must be one of {", ".join(WAYS)}, not "{how}"')
        if hook != "__init__" and hook not in PLACES:
            raise ValueError(f'hook must be __init__ or one of {", ".join(PLACES)}, not "{hook}"')
        if how in LIES and not (hook.startswith("transform_") and hook.endswith("_batch")):
            raise ValueError(f"how: {how} needs hook: transform_train_batch, not {hook}")
        if ask and not may_ask(hook):
            raise ValueError(f"ask: true needs a hook that all ranks call together, not {hook}")
        self.how, self.hook, self.rank, self.times = how, hook, rank, times
        self.micro, self.ask = micro, ask
        self.steps = [step] if isinstance(step, int) else list(step)
        self.seen = 0
        facts = bulkhead.facts()
        if hook == "__init__" and rank in (-1, facts.rank):
            self._strike(facts.run_dir, f"{facts.plugin}-{facts.rank}-__init__")

    def configure(self, config, ctx):
        self._visit("configure", ctx)

    def preprocess(self, rows, ctx):
        self._visit("preprocess", ctx)

    def keep(self, row, ctx):
        self._visit("keep", ctx)
        return True

    def transform_train_batch(self, batch, ctx):
        self._change("transform_train_batch", batch, ctx)

    def transform_validate_batch(self, batch, ctx):
        self._change("transform_validate_batch", batch, ctx)

    def transform_test_batch(self, batch, ctx):
        self._change("transform_test_batch", batch, ctx)

    def transform_image(self, image, ctx):
        self._visit("transform_image", ctx)

    def transform_caption(self, caption, ctx):
        self._visit("transform_caption", ctx)
        return caption

    def transform_sample(self, sample, ctx):
        self._visit("transform_sample", ctx)

    def on_step_end(self, ctx):
        self._visit("on_step_end", ctx)
        self.seen += 1

    def should_stop(self, ctx):
        self._visit("should_stop", ctx)
        return False

    def state_dict(self, ctx):
        self._visit("state_dict", ctx)
        return {"seen": self.seen}

    def load_state_dict(self, state, ctx):
        self._visit("load_state_dict", ctx)
        self.seen = state["seen"]

    def _change(self, hook, batch, ctx):
        lie = self._visit(hook, ctx)
        self.seen += 1
        for name in list(batch):
            if batch.dtype(name) in FLOATS:
                batch.mutable(name)[...] += 0.001 * (self.seen % 7)
            elif name == "input_ids" and batch[name].shape[-1] >= 2 and self.seen % 2:
                ids = batch.mutable(name)
                ids[..., [0, 1]] = ids[..., [1, 0]]
        if lie:
            self._lie(batch)

    def _visit(self, hook, ctx):
        """Strikes if this is the place; True: the output shall be a lie."""
        if hook != self.hook or (-1 not in self.steps and ctx.global_step not in self.steps):
            return False
        if is_of_micro_batch(hook) and self.micro not in (-1, ctx.micro_batch):
            return False
        if self.ask:  # on every rank alike, whoever is to be struck
            self.seen += sum(part for part in ctx.all_gather(ctx.rank + 1) if part is not None)
        if self.rank not in (-1, ctx.rank):
            return False
        plugin = bulkhead.facts().plugin
        return self._strike(ctx.run_dir, f"{plugin}-{ctx.rank}-{hook}-{ctx.global_step}")

    def _strike(self, run_dir, place):
        if not self._take_turn(run_dir, place):
            return False
        sys.stdout.flush()
        if self.how not in LIES:
            FAULTS[self.how]()
        return self.how in LIES

    def _take_turn(self, run_dir, place):
        """Whether a fault is left for this place; a file made before the blow counts it."""
        folder = os.path.join(run_dir, "saboteur")
        os.makedirs(folder, exist_ok=True)
        for turn in range(self.times):
            try:
                os.close(os.open(os.path.join(folder, f"{place}-{turn}"), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
                return True
            except FileExistsError:
                continue
        return False

    def _lie(self, batch):
        for name in list(batch):
            array = batch[name]
            if self.how == "nan" and batch.dtype(name) in FLOATS:
                batch.mutable(name)[...] = np.nan
            elif self.how == "wrong_shape":
                batch[name] = array[:-1]
            elif self.how == "wrong_type":
                wanted = np.float64 if batch.dtype(name) != "float64" else np.float32
                batch[name] = (array if isinstance(array, np.ndarray) else array.cpu().numpy()).astype(wanted)


def _only_visits(hook):
    def method(self, ctx):
        self._visit(hook, ctx)

    method.__name__ = hook
    return method


for _hook in PLACES:
    if _hook not in vars(Saboteur):
        setattr(Saboteur, _hook, _only_visits(_hook))


def _raise():
    raise RuntimeError("the saboteur was here")


def _garbage():
    serving = host.current()
    socket = serving.data_socket or serving.control_socket
    socket.send(b"\xc1 this is not msgpack" + os.urandom(64))


FAULTS = {
    "segv": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit0": lambda: sys.exit(0),
    "exit3": lambda: sys.exit(3),
    "raise": _raise,
    "hang": lambda: threading.Event().wait(),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "garbage": _garbage,
}
