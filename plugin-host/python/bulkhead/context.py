"""What a hook is told and what it may ask for: `ctx`, and `facts()` for the constructor.

One Context is made for each call.  It does no I/O of its own: what a plugin logs goes through the `send` of the
call's owner.  Used on the host's one thread.
"""

from __future__ import annotations

import math
from typing import Any, Callable, Dict, Mapping, Optional

from bulkhead import messages, wire
from bulkhead.rng import Rng, call_key

_MAX_REASON = 4096  # characters of a stop reason


class Facts:
    """The facts of a plugin process, which stay the same for an incarnation; read-only attributes."""

    __slots__ = ("rank", "local_rank", "node_rank", "world_size", "local_world_size", "is_distributed", "is_main",
                 "device", "map_loc", "scope", "project", "run_dir", "run_seed", "plugin", "generation")  # fmt: skip

    def __init__(self, generation: int = 0, **values: Any) -> None:
        defaults = messages.default_facts()
        object.__setattr__(self, "generation", generation)
        for name, default in defaults.items():
            object.__setattr__(self, name, values.pop(name, default))
        if values:
            raise TypeError(f"{sorted(values)[0]} is not a fact")

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{name} is a fact of this process and cannot be set")


_facts: Optional[Facts] = None


def facts() -> Facts:
    """The facts of this process, for a constructor, which has no ctx.  Outside a host: RuntimeError."""
    if _facts is None:
        raise RuntimeError("bulkhead.facts() is known only inside a plugin host, once it has been told its plugin")
    return _facts


def set_facts(new: Facts) -> None:
    """For the host only."""
    global _facts
    _facts = new


class Control:
    """What a call asks for; merged over plugins and ranks, and done by all ranks at the same step.

    Outside its call it is inert: nothing happens, nothing is raised.
    """

    __slots__ = ("_asked", "_open")

    def __init__(self) -> None:
        self._asked: Dict[str, Any] = {}
        self._open = True

    def stop(self, reason: str = "") -> None:
        """End training; the first reason given is kept for summary.json."""
        if self._open and not self._asked.get("stop"):
            self._asked["stop"] = True
            self._asked["reason"] = wire.clean_text(str(reason), _MAX_REASON)

    def stop_epoch(self) -> None:
        """End this epoch."""
        self._ask("stop_epoch")

    def save(self) -> None:
        """Write a checkpoint."""
        self._ask("save")

    def validate(self) -> None:
        """Run a validation."""
        self._ask("validate")

    def log(self) -> None:
        """Log this step's metrics, whether its turn has come or not."""
        self._ask("log")

    def asked(self) -> Dict[str, Any]:
        """For the host: what was asked for; empty for nothing."""
        return self._asked

    def _ask(self, name: str) -> None:
        if self._open:
            self._asked[name] = True


def _fact(name: str, doc: str) -> property:
    return property(lambda self: getattr(self._facts, name), doc=doc)


def _of_call(name: str, doc: str) -> property:
    return property(lambda self: self._call[name], doc=doc)


class Context:
    """`ctx`: the facts of the process and of one call, what may be asked for, and a seeded generator."""

    __slots__ = ("_facts", "_call", "_hook", "_seed_rank", "_send", "_rng", "_open", "control")

    rank = _fact("rank", "Of this process; scope job: 0.")
    local_rank = _fact("local_rank", "Rank within its node.")
    node_rank = _fact("node_rank", "Index of the node.")
    world_size = _fact("world_size", "Number of ranks.")
    local_world_size = _fact("local_world_size", "Number of ranks on this node.")
    is_distributed = _fact("is_distributed", "More than one rank.")
    is_main = _fact("is_main", "Rank 0.")
    device = _fact("device", 'The rank\'s: "cpu" or "cuda:N".')
    map_loc = _fact("map_loc", "For torch.load(map_location=…).")
    generation = _fact("generation", "Of this incarnation of the host.")
    scope = _fact("scope", '"rank", "node" or "job".')
    project = _fact("project", "The run's name.")
    run_dir = _fact("run_dir", "The run's directory, absolute.")

    epoch = _of_call("epoch", "From 0.")
    global_step = _of_call(
        "global_step", "Step hooks and batches: the step's index from 0; elsewhere the number of steps completed."
    )
    step_in_epoch = _of_call("step_in_epoch", "From 0.")
    epoch_length = _of_call("epoch_length", "Steps in an epoch.")
    max_steps = _of_call("max_steps", "0: the run ends by epochs alone.")
    max_epochs = _of_call("max_epochs", "0: the run ends by steps alone.")
    micro_batch = _of_call("micro_batch", "Transforms: index of the micro-batch within its step.")
    lr = _of_call("lr", "Learning rate.")
    grad_norm = _of_call("grad_norm", "Total gradient norm before clipping.")
    metrics = _of_call("metrics", 'Name → number, e.g. "loss"; what there is depends on the hook.')
    best_metric = _of_call("best_metric", "Lowest validation loss so far, or None.")
    call_id = _of_call("call_id", "The same when this call is made again after a crash.")
    replaying = _of_call("replaying", "True: made only to bring the state back; Control and logs are dropped.")

    def __init__(
        self, facts: Facts, call: Mapping[str, Any], hook: str, seed_rank: int, send: Callable[[str, dict], None]
    ) -> None:
        self._facts = facts
        self._call = call
        self._hook = hook
        self._seed_rank = seed_rank
        self._send = send
        self._rng: Optional[Rng] = None
        self._open = True
        self.control = Control()

    @property
    def rng(self) -> Rng:
        """A numpy Generator (Philox) with the seed of this call; see bulkhead.rng."""
        if self._rng is None:
            self._rng = Rng.of_key(self.key())
        return self._rng

    def key(self) -> Any:
        """The Philox key of this call: two 64-bit numbers."""
        facts, call = self._facts, self._call
        return call_key(
            facts.run_seed, facts.plugin, self._seed_rank, self._hook, call["global_step"], call["micro_batch"]
        )

    def log(self, text: Any) -> None:
        """One line for the run's log.  Takes effect when this call is accepted."""
        if self._open:
            self._send("note", {"text": wire.clean_text(str(text), wire.MAX_TEXT // 4), "metrics": {}})

    def log_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Numbers for metrics.jsonl, with this step's line.  TypeError or ValueError for what is not finite numbers."""
        numbers = {}
        for name, value in dict(metrics).items():
            if not isinstance(name, str):
                raise TypeError(f"ctx.log_metrics: the name {name!r} is not a string")
            number = wire.to_float(value, f'ctx.log_metrics: "{name}"')
            if not math.isfinite(number):
                raise ValueError(f'ctx.log_metrics: "{name}" is {number}; only finite numbers are logged')
            numbers[name] = number
        if self._open:
            self._send("note", {"text": "", "metrics": numbers})

    def progress(self, detail: Optional[Mapping[str, Any]] = None) -> None:
        """Says that this call is still at work: its deadline starts anew."""
        value = wire.to_value({} if detail is None else detail, "ctx.progress")
        if self._open:
            self._send("progress", {"detail": value})

    def close(self) -> None:
        """For the host only: the call is over, so control and logs are inert from here on."""
        self._open = False
        self.control._open = False
