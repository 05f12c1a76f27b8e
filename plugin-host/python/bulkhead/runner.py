"""Calls to replies: seeds, calls the hook, checks what came back.  No I/O of its own.

`send(envelope, payloads)` is given notes, progress, questions and replies; payloads may be plugins' arrays, so they
must be copied before it returns.  `receive(seq, number)` waits for the answer to the question that was just sent.
Used on the host's one thread.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from bulkhead import checks, messages, rows, state, wire
from bulkhead.asking import AskFailed, Tensors
from bulkhead.batch import Batch
from bulkhead.context import Context, Facts
from bulkhead.device import Gpu
from bulkhead.failure import failure_of, sentence
from bulkhead.hooks import COLLATE, HOOKS, NOTIFY, ROWS, SAMPLE, TRANSFORM
from bulkhead.loader import LoadedPlugin
from bulkhead.memory import Memory
from bulkhead.rng import GlobalSeeds
from bulkhead.samples import Samples

Send = Callable[[dict, Sequence[Any]], None]
Receive = Callable[[int, int], dict]


_SEED_THEMSELVES = (SAMPLE, ROWS, COLLATE)  # by sample or row


class CallAborted(BaseException):
    """Raised by `receive`: nobody waits for this call any more.  Passes the plugin's own `except Exception`."""


class Runner:
    """Answers the calls to one plugin, one at a time, in order."""

    def __init__(
        self, loaded: LoadedPlugin, facts: Facts, seeds: Optional[GlobalSeeds], send: Send, receive: Receive,
        gpu: Optional[Gpu] = None,
    ) -> None:  # fmt: skip
        """`seeds`: None when the class says ``seeded = False``; `gpu`: where its batches are."""
        self._plugin = loaded.plugin
        self._stateless = loaded.traits["stateless"]
        self._steers = loaded.traits["steers"]
        self._raises = type(loaded.plugin).raises
        self._own_state = "state_dict" in loaded.hooks
        self._facts = facts
        self._seeds = seeds
        self._gpu = gpu
        self._send = send
        self._receive = receive
        self.memory: Optional[Memory] = None  # shared with the worker; the host sets it
        self._seq = 0
        self._asked = 0  # questions of this call
        self._answers: Dict[str, Callable[[dict, Context], dict]] = {}
        special = {"should_stop": self._should_stop, "configure": self._configure}
        of_kind = {NOTIFY: self._notify, TRANSFORM: self._transform, SAMPLE: self._samples}
        of_kind.update({ROWS: self._rows, COLLATE: self._rows})
        for hook, kind in HOOKS.items():
            if kind in of_kind:
                self._answers[hook] = _bind(special.get(hook, of_kind[kind]), getattr(self._plugin, hook))
        self._answers["state_dict"] = self._state_dict
        self._answers["load_state_dict"] = self._load_state_dict
        self._state_takes_ctx = checks.takes(self._plugin.state_dict, 1)
        self._load_takes_ctx = checks.takes(self._plugin.load_state_dict, 2)

    def run(self, call: dict) -> None:
        """Sends the reply to `call`, whose batch it takes out of it, and before it what the hook logs.

        SystemExit and KeyboardInterrupt pass, unless they are among the class's `raises`; so do CallAborted and
        GpuLost.
        """
        hook, seq = call["hook"], call["seq"]
        self._seq = seq
        self._asked = 0
        if hook == "configure" or hook not in self._answers:
            failure = sentence(f'this host does not know the hook "{hook[:64]}"', "LookupError")
            self._send(messages.reply(self._facts.generation, seq, hook, 0.0, failure=failure), ())
            return
        ctx = Context(self._facts, call["context"], hook, call["seed_rank"], self._note, self._ask, self._steers)
        failure, fatal, fields, seconds = self._answer(call, ctx)
        payloads = fields.pop("payloads", ())
        memory = self.memory
        if memory is not None:
            held = memory.held() + (self._gpu.held() if self._gpu is not None else [])
            fields["held"] = [messages.place(*place) for place in held]
            self._tell_memory(memory)
        reply = messages.reply(self._facts.generation, seq, hook, seconds, failure=failure, fatal=fatal, **fields)
        self._send(reply, payloads)

    def _tell_memory(self, memory: Memory) -> None:
        unused, gone = memory.take_unused(), memory.end_call()
        if self._gpu is not None:
            unused += self._gpu.take_unused()
        if unused or gone:
            news = messages.memory_news(self._facts.generation, [messages.place(*place) for place in unused], gone)
            self._send(news, ())

    def configure(self, config: Any) -> dict:
        """The message that answers `configure`: changes, or a failure.  Nothing else is sent."""
        call = {"hook": "configure", "config": config}
        quiet = Context(
            self._facts, messages.default_context(), "configure", self._facts.rank, _to_own_log, self._ask, self._steers
        )
        failure, _, fields, _ = self._answer(call, quiet)
        return messages.configured(self._facts.generation, fields.get("changes", {}), failure)

    def failed(self, error: BaseException) -> dict:
        """What a hook raised, as the failure of a reply."""
        return failure_of(error)

    def _answer(self, call: dict, ctx: Context) -> Tuple[Optional[dict], bool, dict, float]:
        """(failure, whether it is fatal, fields of the reply, seconds inside the hook)."""
        if self._seeds is not None and HOOKS[call["hook"]] not in _SEED_THEMSELVES:
            self._seeds.seed(ctx.key())
        failure, fatal, fields, started = None, False, {}, time.perf_counter()
        try:
            fields = self._answers[call["hook"]](call, ctx)
        except CallAborted:
            raise
        except BaseException as error:
            if self._gpu is not None:
                self._gpu.check(error)
            fatal = isinstance(error, self._raises)
            if isinstance(error, (SystemExit, KeyboardInterrupt)) and not fatal:
                raise
            failure = self.failed(error)
        finally:
            ctx.close()
        return failure, fatal, fields, time.perf_counter() - started

    # ----- During a call -----

    def _note(self, kind: str, fields: dict) -> None:
        build = messages.note if kind == "note" else messages.progress
        self._send(build(self._facts.generation, self._seq, **fields), ())

    def _ask(self, what: str, tensors: List[dict], payloads: List[Any]) -> Tensors:
        number, self._asked = self._asked, self._asked + 1
        self._send(messages.ask(self._facts.generation, self._seq, number, what, tensors), payloads)
        answer = self._receive(self._seq, number)
        if answer["failure"] is not None:
            raise AskFailed(answer["failure"]["message"] or answer["failure"]["type"])
        return answer["batch"]

    # ----- One answer for each kind of hook: the fields of the reply -----

    def _notify(self, method: Callable, call: dict, ctx: Context) -> dict:
        method(ctx)
        return _asked(ctx)

    def _configure(self, method: Callable, call: dict, ctx: Context) -> dict:
        changes = method(call["config"], ctx)
        if changes is None:
            return {}
        if not isinstance(changes, dict):
            raise TypeError(f"configure returned {wire.a(type(changes))}; it must return nothing or a dict of changes")
        try:
            plain = wire.to_value(changes, "configure's changes")
            wire.pack(messages.configured(0, plain, None))
        except ValueError as error:
            raise TypeError(str(error)) from None
        return {"changes": plain}

    def _should_stop(self, method: Callable, call: dict, ctx: Context) -> dict:
        if method(ctx):
            ctx.control.stop(f"{self._facts.plugin} said should_stop")  # its own reason came first, if any
        return _asked(ctx)

    def _transform(self, method: Callable, call: dict, ctx: Context) -> dict:
        if self._gpu is not None:
            return self._transform_on_gpu(self._gpu, method, call, ctx)
        batch = Batch(call.pop("batch"), self.memory, call.get("writable", ()))
        _update(batch, method(batch, ctx), call["hook"])
        pieces = batch.pieces()
        changed, kept, payloads = batch.output()
        return {**_asked(ctx), "batch": changed, "kept": kept, "pieces": pieces, "payloads": payloads}

    def _transform_on_gpu(self, gpu: Gpu, method: Callable, call: dict, ctx: Context) -> dict:
        from bulkhead.torch_device_batch import DeviceBatch  # imports torch

        region = gpu.open(call["region"]) if call["region"] is not None else None
        batch = DeviceBatch(gpu.device, region, Batch(call.pop("batch"), self.memory), self.memory)
        _update(batch, method(batch, ctx), call["hook"])
        changed, kept, in_region, payloads = batch.finish()
        gpu.finish()
        return {**_asked(ctx), "batch": changed, "kept": kept, "in_region": in_region, "payloads": payloads}

    def _samples(self, method: Callable, call: dict, ctx: Context) -> dict:
        batch = Batch(call.pop("batch"), self.memory)
        Samples(batch).run(call["hook"], method, ctx, self._seed_of(ctx))
        changed, kept, payloads = batch.output()
        return {**_asked(ctx), "batch": changed, "kept": kept, "payloads": payloads}

    def _rows(self, method: Callable, call: dict, ctx: Context) -> dict:
        made = rows.run(call["hook"], Batch(call.pop("batch"), self.memory), method, ctx, self._seed_of(ctx))
        changed, _, payloads = made.output()
        return {**_asked(ctx), "batch": changed, "payloads": payloads}

    def _seed_of(self, ctx: Context) -> Callable[[], None]:
        return _nothing if self._seeds is None else lambda: self._seeds.seed(ctx.key())

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


def _update(batch: Any, result: Any, hook: str) -> None:
    """With what the hook returned; TypeError for what is no batch."""
    if isinstance(result, dict):
        batch.update(result)
    elif result is not None and result is not batch and result is not batch.current_torch():
        raise TypeError(
            f"{hook} returned {wire.a(type(result))}; it must return nothing, the batch, or a dict of arrays"
        )


def _nothing() -> None:
    pass


def _to_own_log(kind: str, fields: dict) -> None:
    """configure comes before there is a rank that could take a note."""
    if kind == "note":
        print(fields["text"] or fields["metrics"], flush=True)


def _asked(ctx: Context) -> dict:
    asked, (weights, payloads) = ctx.control.asked(), ctx.loaded_weights()
    fields = {"asked": messages.control(asked)} if asked else {}
    if weights:
        fields.update(batch=weights, payloads=payloads)
    return fields
