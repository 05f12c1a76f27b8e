"""A rank that is not there: keeps what a plugin sends in a test and answers what it asks (bulkhead/testing.py).

The hooks run in the host's own Runner; only sockets and other ranks are missing.  For one thread.
"""

from __future__ import annotations

from typing import Any, Callable, List, Mapping, Optional, Sequence, Union

from bulkhead import loader, state, wire
from bulkhead.batch import Batch
from bulkhead.context import Facts
from bulkhead.plugin import Plugin
from bulkhead.rng import GlobalSeeds
from bulkhead.runner import Runner

Gather = Union[Sequence[Any], Callable[[Any], Sequence[Any]]]


class LoneRank(Runner):
    """Keeps what the plugin sends, answers what it asks."""

    def __init__(
        self, plugin: Plugin, facts: Facts, gather: Optional[Gather], weights: Optional[Mapping[str, Any]]
    ) -> None:
        adopted = loader.adopt(plugin, facts.scope)
        super().__init__(adopted, facts, GlobalSeeds() if type(plugin).seeded else None, self._keep, self._reply)
        self.sent: List[dict] = []
        self.reply: dict = {}
        self.bytes: List[bytes] = []  # of the reply's tensors and state, in order
        self.error: Optional[BaseException] = None
        self._gather, self._given_weights = gather, weights
        self._question: tuple = ()

    def call(self, call: dict, config: Any) -> None:
        if call["hook"] == "configure":
            self.reply = self.configure({} if config is None else config)
        else:
            self.run(dict(call))  # which takes the batch out of it

    def failed(self, error: BaseException) -> dict:
        self.error = error
        return super().failed(error)

    def _keep(self, envelope: dict, payloads: Sequence[Any]) -> None:
        carried = [b"".join(wire.chunks(payload)) for payload in payloads]
        envelope = wire.unpack([wire.pack(envelope)])
        if envelope["type"] == "ask":
            self._question = (envelope["what"], carried)
        elif envelope["type"] == "reply":
            self.reply, self.bytes = envelope, carried
        else:
            self.sent.append(envelope)

    def _reply(self, seq: int, number: int) -> dict:
        what, carried = self._question
        try:
            tensors = self._parts(state.unpack(carried[0])) if what == "all_gather" else self._parameters()
        except Unanswered as error:
            return {"failure": {"type": "LookupError", "message": str(error), "traceback": ""}, "batch": []}
        return {"failure": None, "batch": tensors}

    def _parts(self, value: Any) -> list:
        ranks, own = self._facts.world_size, self._facts.rank
        if callable(self._gather):
            values = list(self._gather(value))
        else:
            values = [value] * ranks if self._gather is None else list(self._gather)
            values[own : own + 1] = [value]
        if len(values) != ranks:
            raise Unanswered(f"run_hook was given {len(values)} values to gather for {ranks} ranks")
        packed = [(rank, state.pack(part)) for rank, part in enumerate(values) if part is not None]
        return [(str(rank), "uint8", (len(data),), data) for rank, data in packed]

    def _parameters(self) -> list:
        if self._given_weights is None:
            raise Unanswered("the hook asked for weights: give run_hook some, weights={name: array}")
        return tensors_of(self._given_weights)


class Unanswered(Exception):
    """What the test did not give; one sentence."""


def tensors_of(arrays: Mapping[str, Any]) -> list:
    """(name, type, shape, bytes) of each, as a call holds them.  TypeError or ValueError for what is not carried."""
    batch = Batch()
    batch.update(arrays)
    changed, _, payloads = batch.output()
    return [
        (tensor["name"], tensor["dtype"], tuple(tensor["shape"]), payload.tobytes())
        for tensor, payload in zip(changed, payloads)
    ]
