"""One DEALER connection and its handshake.

Never blocks: what cannot be sent at once means that the peer has gone.  Messages of another generation than the
one agreed on are dropped here, and nowhere else, and counted.  Used on the host's one thread.
"""

from __future__ import annotations

import sys
import time
from typing import Any, Optional, Sequence, Tuple

import zmq

from bulkhead import messages, wire
from bulkhead.memory import CAPABILITY, Memory

HANDSHAKE_SECONDS = 30.0
WORKER_SECONDS = 300.0  # a worker answers when it has read its data
_RECONNECT_MS, _RECONNECT_MAX_MS = 1, 100


class Refused(Exception):
    """The peer does not want this process, or did not answer; one sentence."""


class PeerGone(Exception):
    """A send could not be queued."""


class Link:
    """States: connecting → greeting (hello sent) → open.  `socket` is for the poller."""

    def __init__(self, context: zmq.Context, endpoint: str, hello: dict, expected_generation: Optional[int]) -> None:
        """`expected_generation`: of the peer; None takes the one it says in its welcome."""
        self.socket = context.socket(zmq.DEALER)
        for option, value in (
            (zmq.LINGER, 0), (zmq.IMMEDIATE, 1), (zmq.MAXMSGSIZE, wire.MAX_FRAME), (zmq.SNDHWM, 0), (zmq.RCVHWM, 0),
            (zmq.RECONNECT_IVL, _RECONNECT_MS), (zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS),
        ):  # fmt: skip
            self.socket.setsockopt(option, value)
        try:
            self.socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.socket.close()
            raise Refused(f'"{endpoint}" is not an endpoint: {error}') from None
        self.endpoint = endpoint
        self.is_open = False
        self.stale = 0  # messages dropped
        self.generation = expected_generation  # the peer's
        self.memory: Optional[Memory] = None  # in which tensors may lie
        self._hello: Optional[dict] = hello
        self._patience = HANDSHAKE_SECONDS if expected_generation is None else WORKER_SECONDS
        self._deadline = time.monotonic() + self._patience

    @property
    def wants(self) -> int:
        """The poll flags."""
        return zmq.POLLIN if self._hello is None else zmq.POLLIN | zmq.POLLOUT

    def advance(self, now: float) -> None:
        """Says hello once connected; Refused when the handshake takes too long."""
        if self.is_open:
            return
        if self._hello is not None and self.socket.getsockopt(zmq.EVENTS) & zmq.POLLOUT:
            self.send(self._hello)
            self._hello = None
        if now >= self._deadline:
            raise Refused(f"no answer from {self.endpoint} within {self._patience:.0f} s")

    def send(self, envelope: dict, payloads: Sequence[Any] = ()) -> None:
        """Queues a message; payloads are copied unless they are bytes.  PeerGone when it cannot be queued."""
        try:
            if not payloads:
                self.socket.send(wire.pack(envelope), zmq.DONTWAIT)
                return
            parts = [(wire.pack(envelope), True)]
            for payload in payloads:
                parts.extend((piece, not isinstance(payload, bytes)) for piece in wire.chunks(payload))
            for index, (part, copy) in enumerate(parts):
                more = zmq.SNDMORE if index + 1 < len(parts) else 0
                self.socket.send(part, zmq.DONTWAIT | more, copy=copy)
        except zmq.Again:
            raise PeerGone(f"{self.endpoint} has gone") from None

    def receive(self) -> Optional[Tuple[str, dict]]:
        """The next message, or None; Refused or Malformed as the name says.  Welcomes are dealt with here."""
        try:
            frames = self.socket.recv_multipart(zmq.DONTWAIT)
        except zmq.Again:
            return None
        kind, fields = messages.decode(frames, self.memory)
        if kind == "refuse" and not self.is_open:
            raise Refused(fields["reason"] or "refused without a reason")
        if kind == "welcome" and self.generation is None:
            self.generation = fields["generation"]
        if fields["generation"] != self.generation:
            self.stale += 1
            return None
        if kind == "welcome":
            if fields["version"] != messages.VERSION:
                raise Refused(f"protocol version {fields['version']} was agreed on, but this host speaks only 1")
            self.is_open = True
            if CAPABILITY in fields["capabilities"]:
                self._share_memory()
            return None
        return (kind, fields) if self.is_open else None

    def close(self, linger_ms: int = 0) -> None:
        """`linger_ms`: time for what is queued to be sent."""
        self.socket.close(linger=linger_ms)
        if self.memory is not None:
            self.memory.close()
            self.memory = None

    def _share_memory(self) -> None:
        try:
            self.memory = Memory(self.endpoint[len("ipc://") :] + ".memory")
        except OSError as error:
            print(f"bulkhead host: no memory is shared with the worker: {error}", file=sys.stderr)


