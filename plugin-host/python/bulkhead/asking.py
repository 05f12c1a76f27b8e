"""What a plugin may ask the rank for inside a call: values of the other ranks, parameters; and giving parameters back.

The rules are protocol/README.md's, "Asking" and "Loading weights".  The question goes through `ask(what, tensors,
payloads)`, which waits for the answer and returns its tensors, or raises what the rank answered.  Used on the host's
one thread, during the call.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from bulkhead import messages, state
from bulkhead.batch import Batch, as_tensor
from bulkhead.hooks import HOOKS, NOTIFY, START, WAITED, did_you_mean

Tensors = Sequence[Tuple[str, str, Tuple[int, ...], bytes]]
Ask = Callable[[str, List[dict], List[Any]], Tensors]

_WITH_WEIGHTS = ("on_step_start", "on_optimizer_step_end", "on_step_end", "should_stop", "on_log", *WAITED)


class AskFailed(RuntimeError):
    """The rank could not answer; the message is its sentence."""


def no_gather(hook: str, scope: str, steers: bool) -> str:
    """Why this call may not gather, one sentence; empty when it may."""
    if not steers:
        return "ctx.all_gather is not for a plugin with `steers = False`: nothing waits for it"
    if scope == "node":
        return "ctx.all_gather is not for scope node, where one process answers for several ranks; use scope rank or job"
    if HOOKS.get(hook) != NOTIFY or hook in START or hook == "on_exception":
        return f"ctx.all_gather is not for {hook}, which the ranks do not call together; ask in a step or epoch hook"
    return ""


def no_weights(hook: str, steers: bool) -> str:
    """Why this call may not see the parameters; empty when it may."""
    if not steers:
        return "ctx.weights is not for a plugin with `steers = False`: nothing waits for it"
    if hook not in _WITH_WEIGHTS:
        return (
            f"ctx.weights is not for {hook}, during which parameters change; ask in {', '.join(_WITH_WEIGHTS[:-1])} "
            f"or {_WITH_WEIGHTS[-1]}"
        )
    return ""


def no_loading(hook: str, steers: bool) -> str:
    """Why this call may not replace parameters; empty when it may."""
    if not steers:
        return "ctx.load_weights is not for a plugin with `steers = False`: its replies are not read"
    if hook not in WAITED:
        return (
            f"ctx.load_weights is not for {hook}, which the ranks do not wait for; give weights in "
            f"{', '.join(WAITED[:-1])} or {WAITED[-1]}"
        )
    return ""


def all_gather(ask: Ask, value: Any, scope: str, world_size: int) -> List[Any]:
    """`value` of every rank, in rank order; None for one on which the plugin was given up."""
    try:
        packed = state.pack(value)
    except state.NotCarried as error:
        raise TypeError(f"ctx.all_gather was given {error}, which cannot be carried without pickle") from None
    if scope == "job":  # one process: nobody else to ask
        return [state.unpack(packed)]
    tensor = messages.tensor("value", "uint8", [len(packed)])
    parts = {name: data for name, _, _, data in ask("all_gather", [tensor], [packed])}
    return [state.unpack(parts[str(rank)]) if str(rank) in parts else None for rank in range(world_size)]


class Weights:
    """The parameters that one call was shown, and those that it gives back."""

    def __init__(self) -> None:
        self._shown: Optional[Batch] = None
        self._given: Dict[str, Tuple[str, np.ndarray]] = {}

    def show(self, ask: Ask) -> Dict[str, np.ndarray]:
        """Name → read-only array, in the model's order; the rank is asked once a call."""
        if self._shown is None:
            self._shown = Batch(ask("weights", [], []))
        return {name: self._shown[name] for name in self._shown}

    def give(self, parameters: Mapping[str, Any]) -> None:
        """TypeError, ValueError or KeyError for what cannot be a parameter; nothing is given then."""
        given = {}
        for name, value in dict(parameters).items():
            if not isinstance(name, str):
                raise TypeError(f"ctx.load_weights: the name {name!r} is not a string")
            known = self._shown is not None and name in self._shown
            bfloat16 = known and self._shown.dtype(name) == "bfloat16"
            given[name] = as_tensor(name, value, bfloat16, "ctx.load_weights: ")
            if self._shown is not None:
                self._check(name, *given[name])
        self._given.update(given)

    def output(self) -> Tuple[List[dict], List[Any]]:
        """For the host: (descriptors, bytes) of what was given."""
        batch = Batch()
        for name, (dtype, array) in self._given.items():
            batch.put(name, dtype, array)
        changed, _, payloads = batch.output()
        return changed, payloads

    def _check(self, name: str, dtype: str, array: np.ndarray) -> None:
        """Against what the call was shown.  Without having asked only the rank can tell."""
        if name not in self._shown:
            raise KeyError(f'ctx.load_weights: the model has no "{name}"{did_you_mean(name, self._shown)}')
        wanted = (self._shown.dtype(name), tuple(self._shown.shape(name)))
        if (dtype, array.shape) != wanted:
            raise ValueError(
                f'ctx.load_weights: "{name}" must be {wanted[0]} {list(wanted[1])}, not {dtype} {list(array.shape)}'
            )
