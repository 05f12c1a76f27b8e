"""One incarnation of the host under check: greeted, loaded, attached, called; its questions answered.

Plays the coordinator and the rank.  Raises Died, Hung or Garbage (process.py) when the host does not do its part, and
NotLoaded when it does not want the plugin.  One thread.
"""

from __future__ import annotations

import os
import time
from typing import Any, Dict, List, Optional, Tuple

from bulkhead import messages, wire
from bulkhead.check import inputs
from bulkhead.check.process import WORKER, Garbage, HostProcess, Peer

Reply = Tuple[dict, List[bytes]]
_OPENING = 10  # times the deadline of a call: import, constructor, setup
_IN_REPLY = {
    "seq": int, "hook": str, "failure": (dict, type(None)), "control": dict, "batch": list, "kept": list, "state": dict,
    "has_state": bool, "seconds": (float, int), "pieces": list,
}  # fmt: skip
_IN_ASK = {"seq": int, "number": int, "what": str, "batch": list}


class NotLoaded(Exception):
    """The fields of `load_failed`, or of the `refuse` that the host gave itself."""

    def __init__(self, answer: dict) -> None:
        super().__init__(answer["failure"]["message"])
        self.stage = answer["stage"]
        self.failure = answer["failure"]


class Session:
    """A host that is ready for calls once open() has returned."""

    def __init__(
        self, process: HostProcess, config: dict, facts: dict, deadline: float, seed_rank: Optional[int] = None
    ) -> None:
        self._process = process
        self._config, self._facts = config, facts
        self._deadline = deadline
        self._seed_rank = facts["rank"] if seed_rank is None else seed_rank
        self._seq = 0
        self.traits: dict = {}
        self.configured: Optional[dict] = None

    def open(self) -> None:
        """Handshake, load, configure where the plugin has it, attach."""
        control = self._process.control
        self._greet(control)
        control.send({"type": "load", "generation": 0, "config": self._config, "facts": self._facts})
        answer = self._receive(control, self._deadline * _OPENING)[0]
        if answer["type"] == "load_failed":
            raise NotLoaded(answer)
        self._expect(answer, "loaded")
        self.traits = answer["traits"]
        if "configure" in self.traits["hooks"]:
            control.send({"type": "configure", "generation": 0, "config": inputs.CONFIGURATION})
            self.configured = self._receive(control, self._deadline * _OPENING)[0]
            self._expect(self.configured, "configured")
        data = self._process.data
        control.send(
            {"type": "attach", "generation": 0, "endpoint": data.endpoint, "worker_generation": WORKER}
        )
        self._greet(data)

    def call(self, hook: str, context: dict, arrays: Any = None, state: bytes = b"", opening: bool = False) -> Reply:
        """The reply and the bytes after it; its tensors' bytes first, then the state's."""
        self._seq += 0 if opening else 1
        tensors, payloads = inputs.wire_form(arrays) if arrays is not None else ([], [])
        limit = self._deadline * (_OPENING if opening else 1)
        self._process.data.send(
            {
                "type": "call", "generation": 0, "seq": self._seq, "hook": hook, "deadline_ms": int(limit * 1000),
                "seed_rank": self._seed_rank, "context": context, "batch": tensors, "state": {"bytes": len(state)},
            },
            [*payloads, state],
        )  # fmt: skip
        while True:
            message, frames = self._receive(self._process.data, limit)
            if message["type"] == "ask":
                _need(message, _IN_ASK)
                self._answer(message, frames)
            elif message["type"] == "reply":
                _need(message, _IN_REPLY)
                if (message["seq"], message["hook"]) != (self._seq, hook):
                    raise Garbage(f'it answers a call of "{message["hook"]}" that nobody waits for')
                return message, _bytes_of(message, frames)
            elif message["type"] not in ("note", "progress"):  # the deadline starts anew either way
                raise Garbage(f'a host does not say "{message["type"]}" in a call')

    def printed(self) -> bytes:
        """The last part of what the host has printed."""
        return bytes(self._process.printed)

    # ----- -----

    def _greet(self, peer: Peer) -> None:
        hello = self._receive(peer, self._deadline * _OPENING)[0]
        self._expect(hello, "hello")
        if hello.get("secret") != self._process.secret or hello.get("magic") != messages.MAGIC:
            raise Garbage("its hello is not that of the host which was started")
        peer.send({"type": "welcome", "generation": 0, "version": messages.VERSION})

    def _receive(self, peer: Peer, seconds: float) -> Reply:
        heard, envelope, frames = self._process.next(time.monotonic() + seconds)
        if heard is not peer:
            raise Garbage(f'"{envelope["type"]}" came on the wrong connection')
        return envelope, frames

    def _expect(self, message: dict, kind: str) -> None:
        if message["type"] != kind:
            raise Garbage(f'"{message["type"]}" came where "{kind}" belongs')

    def _answer(self, ask: dict, frames: List[bytes]) -> None:
        """Every rank says what this one does; parameters are the recorded ones."""
        if ask.get("what") == "weights":
            tensors, payloads = inputs.wire_form(inputs.weights())
        else:
            part = _bytes_of({**ask, "state": {"bytes": 0}}, frames)[0]
            ranks = range(self._facts["world_size"])
            tensors = [messages.tensor(str(rank), "uint8", [len(part)]) for rank in ranks]
            payloads = [part for _ in ranks]
        self._process.data.send(
            {
                "type": "answer", "generation": 0, "seq": ask["seq"], "number": ask["number"], "failure": None,
                "batch": tensors,
            },
            payloads,
        )  # fmt: skip


def _need(message: dict, fields: Dict[str, Any]) -> None:
    for name, kind in fields.items():
        if not isinstance(message.get(name), kind):
            raise Garbage(f'its {message["type"]} has no "{name}", or one of another type')


def _bytes_of(message: dict, frames: List[bytes]) -> List[bytes]:
    try:
        rest = wire.Bytes(frames)
        sizes = [wire.tensor_size(tensor["dtype"], tensor["shape"]) for tensor in message["batch"]]
        pieces = [rest.take(size) for size in [*sizes, message["state"]["bytes"]]]
        rest.finish()
        return pieces
    except (wire.Malformed, KeyError, TypeError) as error:
        raise Garbage(f"the bytes of its {message['type']} are not those it names: {error}") from None


def facts_of(scope: str, run_dir: str) -> Dict[str, Any]:
    """Rank 0 of two, or the one process of a job."""
    ranks = 1 if scope == "job" else 2
    return {
        **messages.default_facts(), "world_size": ranks, "local_world_size": ranks, "is_distributed": ranks > 1,
        "map_loc": {"cuda:0": "cpu"}, "scope": scope, "project": "check", "run_dir": os.path.abspath(run_dir),
        "plugin": "check",
    }  # fmt: skip
