"""One connection and its handshake: a DEALER socket, and what both sides agree to use instead of it on one machine.

Never blocks: what cannot be sent at once means that the peer has gone.  Messages of another generation than the
one agreed on are dropped here, and nowhere else, and counted.  Used on the host's one thread.
"""

from __future__ import annotations

import time
from typing import Any, List, Optional, Sequence, Tuple, Union

import zmq

from bulkhead import memory, messages, ring, wire
from bulkhead.device import Gpu
from bulkhead.memory import Memory
from bulkhead.ring import PeerGone, RingSocket

HANDSHAKE_SECONDS = 30.0
WORKER_SECONDS = 300.0  # a worker answers when it has read its data
_RECONNECT_MS, _RECONNECT_MAX_MS = 1, 100


class Refused(Exception):
    """The peer does not want this process, or did not answer; one sentence."""


class Link:
    """States: connecting → greeting (hello sent) → open."""

    def __init__(self, context: zmq.Context, endpoint: str, hello: dict, expected_generation: Optional[int]) -> None:
        """`expected_generation`: of the peer; None takes the one it says in its welcome."""
        self.socket: Union[zmq.Socket, RingSocket] = context.socket(zmq.DEALER)
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
        self.is_hot = False  # receive() is to be called again before anybody waits for this link
        self.retired: Optional[zmq.Socket] = None  # given up for a ring, to be closed once it is watched no more
        self.stale = 0  # messages dropped
        self.generation = expected_generation  # the peer's
        self.memory: Optional[Memory] = None  # in which tensors may lie
        self._hello: Optional[dict] = hello
        self._patience = HANDSHAKE_SECONDS if expected_generation is None else WORKER_SECONDS
        self._deadline = time.monotonic() + self._patience

    @property
    def watched(self) -> Tuple[Tuple[Any, int], ...]:
        """What a poller watches for, with its flags."""
        if isinstance(self.socket, RingSocket):
            return tuple((descriptor, zmq.POLLIN) for descriptor in self.socket.descriptors())
        return ((self.socket, zmq.POLLIN if self._hello is None else zmq.POLLIN | zmq.POLLOUT),)

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
        if isinstance(self.socket, RingSocket):
            frames = [wire.pack(envelope)]
            for payload in payloads:
                frames.extend(map(bytes, wire.chunks(payload)))
            self.socket.send_message(frames)
            return
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
        """The next message, or None; Refused, Malformed or PeerGone as the name says.  Welcomes are dealt with here."""
        if isinstance(self.socket, RingSocket):
            frames = self.socket.receive()
            self.is_hot = frames is not None
            if frames is None:
                return None
        else:
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
            self._use(fields["capabilities"])
            return None
        return (kind, fields) if self.is_open else None

    def look_for(self, seconds: float) -> None:
        """Spins until a ring has news, for that long: `is_hot` says so.  A socket is not looked at."""
        if not isinstance(self.socket, RingSocket):
            return
        until = time.monotonic() + seconds
        while not self.is_hot and time.monotonic() < until:
            self.is_hot = self.socket.has_news()

    def close(self, linger_ms: int = 0) -> None:
        """`linger_ms`: time for what is queued to be sent."""
        self.socket.close(linger=linger_ms)
        self.close_retired()
        if self.memory is not None:
            self.memory.close()
            self.memory = None

    def close_retired(self) -> None:
        if self.retired is not None:
            self.retired.close()
            self.retired = None

    def _use(self, agreed: Sequence[str]) -> None:
        """Of what the hello has offered.  Refused where the worker then does not let us in: it waits for us there."""
        path = self.endpoint[len("ipc://") :]
        try:
            if memory.CAPABILITY in agreed:
                self.memory = Memory(path + ".memory")
            if ring.CAPABILITY in agreed:
                self.retired, self.socket = self.socket, ring.connect(path + ".ring")
        except (OSError, PeerGone) as error:
            raise Refused(f"no memory is shared with the worker: {error}") from None


def capabilities(gpu: Optional[Gpu] = None) -> List[str]:
    """What this host can beside its sockets, for the hello to a worker of this machine."""
    offered = [memory.CAPABILITY, *([ring.CAPABILITY] if ring.available() else [])]
    return offered + ([gpu.capability] if gpu is not None else [])
