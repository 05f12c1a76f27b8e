"""What a hook is told and what it may ask for: `ctx`, and `facts()` for the constructor.

One Context is made for each call.  It does no I/O of its own: what a plugin logs goes through the `send` of the
call's owner.  Used on the host's one thread.
"""

from __future__ import annotations

import math
from typing import Any, Callable, Dict, List, Mapping, Optional

import numpy as np

from bulkhead import asking, messages, wire
from bulkhead.control import Control
from bulkhead.rng import Key, Rng, call_key, sample_key


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


def known_facts() -> Optional[Facts]:
    """For tests of plugins: what facts() gives, or None."""
    return _facts


def set_facts(new: Optional[Facts]) -> None:
    """For the host, and for tests of plugins."""
    global _facts
    _facts = new


def _fact(name: str, doc: str) -> property:
    return property(lambda self: getattr(self._facts, name), doc=doc)


def _of_call(name: str, doc: str) -> property:
    return property(lambda self: self._call[name], doc=doc)


def _of_caller(name: str, doc: str) -> property:
    """A process that ranks share is told whose call it is; else it is a fact."""

    def read(self: Context) -> Any:
        value = self._call[name]
        return getattr(self._facts, name) if value is None or value == "" else value

    return property(read, doc=doc)


def _nobody_to_ask(what: str, tensors: Any, payloads: Any) -> Any:
    raise asking.AskFailed(f"there is no rank to ask for {what} here")


class Context:
    """`ctx`: the facts of the process and of one call, what may be asked for, and a seeded generator."""

    __slots__ = ("_facts", "_call", "_hook", "_seed_rank", "_send", "_ask", "_steers", "_rng", "_open", "_weights",
                 "_sample", "_path", "control")  # fmt: skip

    rank = _of_caller("rank", "Whose call it is; scope job: 0.")
    local_rank = _of_caller("local_rank", "That rank within its node.")
    node_rank = _fact("node_rank", "Index of the node.")
    world_size = _fact("world_size", "Number of ranks.")
    local_world_size = _fact("local_world_size", "Number of ranks on this node.")
    is_distributed = _fact("is_distributed", "More than one rank.")
    device = _of_caller("device", 'That rank\'s: "cpu" or "cuda:N".')
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
    micro_batch = _of_call(
        "micro_batch",
        "Index of the micro-batch within its step; in a validation or test the batch's number, in preprocess the chunk's.",
    )
    lr = _of_call("lr", "Learning rate.")
    grad_norm = _of_call("grad_norm", "Total gradient norm before clipping.")
    metrics = _of_call("metrics", 'Name → number, e.g. "loss"; what there is depends on the hook.')
    best_metric = _of_call("best_metric", "Lowest validation loss so far, or None.")
    call_id = _of_call("call_id", "The same when this call is made again after a crash.")
    replaying = _of_call("replaying", "True: made only to bring the state back; Control and logs are dropped.")
    exception = _of_call("exception", "on_exception: why the run ends; elsewhere empty.")

    def __init__(
        self,
        facts: Facts,
        call: Mapping[str, Any],
        hook: str,
        seed_rank: int,
        send: Callable[[str, dict], None],
        ask: asking.Ask = _nobody_to_ask,
        steers: bool = True,
    ) -> None:
        self._facts = facts
        self._call = call
        self._hook = hook
        self._seed_rank = seed_rank
        self._send = send
        self._ask = ask
        self._steers = steers
        self._rng: Optional[Rng] = None
        self._open = True
        self._weights: Optional[asking.Weights] = None
        self._sample: Optional[int] = None
        self._path = ""
        self.control = Control()

    @property
    def is_main(self) -> bool:
        """Rank 0."""
        return self.rank == 0

    @property
    def map_loc(self) -> Dict[str, str]:
        """For torch.load(map_location=…)."""
        return {"cuda:0": self._call["device"]} if self._call["device"] else self._facts.map_loc

    @property
    def sample(self) -> Optional[int]:
        """Sample hooks, keep, encode: the sample's number in the data set; elsewhere None."""
        return self._sample

    @property
    def path(self) -> str:
        """Sample hooks: the image's path; elsewhere empty."""
        return self._path

    @property
    def rng(self) -> Rng:
        """A numpy Generator (Philox) with the seed of this call; see bulkhead.rng."""
        if self._rng is None:
            self._rng = Rng.of_key(self.key())
        return self._rng

    def key(self) -> Key:
        """The Philox key of this call, in a sample hook of this sample, in keep and encode of this row, in preprocess
        of this chunk: two 64-bit numbers."""
        facts, call = self._facts, self._call
        if self._sample is not None:
            return sample_key(facts.run_seed, facts.plugin, self._hook, call["epoch"], self._sample)
        if self._hook == "preprocess":
            return sample_key(facts.run_seed, facts.plugin, self._hook, call["epoch"], call["micro_batch"])
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

    def set(self, name: str, value: Any) -> None:
        """Changes a setting of the run, on all ranks at the same step: `grad_accum` (micro-batches of a step, ≥ 1),
        `log_every`, `save_every`, `validate_every` (steps, 0 as in the run file) or `lr` (≥ 0, of every later step
        whatever the schedule says; None gives it back to the schedule).

        Takes effect after the step whose end the Control of this hook takes effect at; `grad_accum` as many steps
        later as batches are prefetched, except in on_epoch_start, where it is at once.  Of several plugins the last
        in the run file wins, within a plugin the lowest rank, on a rank the last said.  ValueError for anything else.
        """
        self.control.set(name, value)

    def all_gather(self, value: Any) -> List[Any]:
        """`value` of every rank, in rank order: all ranks ask at the same place, and wait for one another.

        `value` is what a state can carry (bulkhead/state.py): numbers, texts, containers, numpy, torch.  None stands
        for a rank on which the plugin was given up.  A call that is made again gets what it got before.  In scope job
        the list has one entry.  RuntimeError in hooks that not all ranks call together (transforms, state, start), in
        scope node and for `steers = False`; AskFailed when another rank returned without asking.
        """
        self._may(asking.no_gather(self._hook, self._facts.scope, self._steers))
        return asking.all_gather(self._ask, value, self._facts.scope, self._facts.world_size)

    def weights(self) -> Dict[str, np.ndarray]:
        """Name → read-only array of every parameter, in the model's order, float32 as trained: a copy.

        bfloat16, which numpy lacks, is seen as uint16 with the same bits.  Only in hooks during which parameters stand
        still: on_step_start, on_optimizer_step_end, on_step_end, should_stop, on_log and all that the ranks wait for;
        RuntimeError elsewhere and for `steers = False`.
        """
        self._may(asking.no_weights(self._hook, self._steers))
        return self._parameters().show(self._ask)

    def load_weights(self, parameters: Mapping[str, Any]) -> None:
        """Replaces parameters by name, with the types and shapes of weights(), on all ranks directly after this hook.

        Arrays or torch tensors, copied when the hook returns.  Of several plugins the last in the run file wins,
        within a plugin the lowest rank; the optimizer forgets its moments of the parameters named.  RuntimeError in a
        hook that the ranks do not wait for.
        """
        self._may(asking.no_loading(self._hook, self._steers))
        if self._open:
            self._parameters().give(parameters)

    # ----- For the host -----

    def begin_sample(self, sample: int, path: str) -> None:
        """The next sample or row: other facts, another seed."""
        self._sample, self._path, self._rng = sample, path, None

    def loaded_weights(self) -> Any:
        """(descriptors, bytes) of what load_weights was given."""
        return self._weights.output() if self._weights is not None else ((), ())

    def close(self) -> None:
        """The call is over, so control and logs are inert from here on."""
        self._open = False
        self.control.close()

    # ----- -----

    def _may(self, refusal: str) -> None:
        if not refusal and not self._open:
            refusal = f"this ctx is over: its call of {self._hook} has returned"
        if refusal:
            raise RuntimeError(refusal)

    def _parameters(self) -> asking.Weights:
        if self._weights is None:
            self._weights = asking.Weights()
        return self._weights
