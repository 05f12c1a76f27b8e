"""Calls to replies: seeds, calls the hook, checks what came back.  No I/O of its own.

`send(envelope, payloads)` is given notes, progress and replies; payloads may be plugins' arrays, so they must be
copied before it returns.  Used on the host's one thread.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, Optional, Sequence

from bulkhead import checks, messages, state, wire
from bulkhead.batch import Batch
from bulkhead.context import Context, Facts
from bulkhead.failure import failure_of, sentence
from bulkhead.hooks import HOOKS, NOTIFY, TRANSFORM
from bulkhead.loader import LoadedPlugin
from bulkhead.rng import GlobalSeeds

Send = Callable[[dict, Sequence[Any]], None]


class Runner:
    """Answers the calls to one plugin, one at a time, in order."""

    def __init__(self, loaded: LoadedPlugin, facts: Facts, seeds: Optional[GlobalSeeds], send: Send) -> None:
        """`seeds`: None when the class says ``seeded = False``."""
        self._plugin = loaded.plugin
        self._stateless = loaded.traits["stateless"]
        self._own_state = "state_dict" in loaded.hooks
        self._facts = facts
        self._seeds = seeds
        self._send = send
        self._seq = 0
        self._answers: Dict[str, Callable[[dict, Context], dict]] = {}
        for hook, kind in HOOKS.items():
            if kind in (NOTIFY, TRANSFORM):
                method = getattr(self._plugin, hook)
                answer = self._transform if kind == TRANSFORM else self._notify
                self._answers[hook] = _bind(self._should_stop if hook == "should_stop" else answer, method)
        self._answers["state_dict"] = self._state_dict
        self._answers["load_state_dict"] = self._load_state_dict
        self._state_takes_ctx = checks.takes(self._plugin.state_dict, 1)
        self._load_takes_ctx = checks.takes(self._plugin.load_state_dict, 2)

    def run(self, call: dict) -> None:
        """Sends the reply to `call`, and before it what the hook logs.  SystemExit and KeyboardInterrupt pass."""
        hook, seq = call["hook"], call["seq"]
        self._seq = seq
        answer = self._answers.get(hook)
        if answer is None:
            failure = sentence(f'this host does not know the hook "{hook[:64]}"', "LookupError")
            self._send(messages.reply(self._facts.generation, seq, hook, 0.0, failure=failure), ())
            return
        ctx = Context(self._facts, call["context"], hook, call["seed_rank"], self._note)
        if self._seeds is not None:
            self._seeds.seed(ctx.key())
        failure, fields, started = None, {}, time.perf_counter()
        try:
            fields = answer(call, ctx)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            failure = failure_of(error)
        seconds = time.perf_counter() - started
        ctx.close()
        payloads = fields.pop("payloads", ())
        self._send(messages.reply(self._facts.generation, seq, hook, seconds, failure=failure, **fields), payloads)

    def _note(self, kind: str, fields: dict) -> None:
        build = messages.note if kind == "note" else messages.progress
        self._send(build(self._facts.generation, self._seq, **fields), ())

    # ----- One answer for each kind of hook: the fields of the reply -----

    def _notify(self, method: Callable, call: dict, ctx: Context) -> dict:
        method(ctx)
        return _asked(ctx)

    def _should_stop(self, method: Callable, call: dict, ctx: Context) -> dict:
        if method(ctx):
            ctx.control.stop(f"{self._facts.plugin} said should_stop")  # its own reason came first, if any
        return _asked(ctx)

    def _transform(self, method: Callable, call: dict, ctx: Context) -> dict:
        batch = Batch(call["batch"])
        result = method(batch, ctx)
        if isinstance(result, dict):
            batch.update(result)
        elif result is not None and result is not batch and result is not batch.current_torch():
            raise TypeError(
                f"{call['hook']} returned {wire.a(type(result))}; it must return nothing, the batch, or a dict "
                f"of arrays"
            )
        changed, kept, payloads = batch.output()
        return {**_asked(ctx), "batch": changed, "kept": kept, "payloads": payloads}

    def _state_dict(self, call: dict, ctx: Context) -> dict:
        if self._stateless:
            return {}
        if self._own_state:
            value = self._plugin.state_dict(ctx) if self._state_takes_ctx else self._plugin.state_dict()
        else:
            value = state.attributes_of(self._plugin)
        if value is None:
            return {}
        try:
            data = state.pack(value)
        except state.NotCarried as error:
            raise TypeError(f"state_dict returned {error}, which cannot be carried without pickle") from None
        return {"state": data, "payloads": (data,)}

    def _load_state_dict(self, call: dict, ctx: Context) -> dict:
        if self._stateless or not call["state"]:
            return {}
        value = state.unpack(call["state"])
        if self._load_takes_ctx:
            self._plugin.load_state_dict(value, ctx)
        else:
            self._plugin.load_state_dict(value)
        return {}


def _bind(answer: Callable, method: Callable) -> Callable[[dict, Context], dict]:
    return lambda call, ctx: answer(method, call, ctx)


def _asked(ctx: Context) -> dict:
    asked = ctx.control.asked()
    return {"asked": messages.control(asked)} if asked else {}
