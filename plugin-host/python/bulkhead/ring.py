"""The host's end of a ring (protocol/README.md, "Ring"): two rings in shared memory, an eventfd each way.

A RingSocket has what bulkhead.link uses of its ZeroMQ socket (`send`, `recv_multipart`, `getsockopt(zmq.EVENTS)`,
`close`); it never blocks.  A poller watches `descriptors()`; when one is readable, call `recv_multipart` until it
raises zmq.Again: only then is the ring asleep, and only a sleeper is woken.  Used on the host's one thread.

Python has no memory barriers.  Plain stores and loads are in order on x86-64 alone, and the one place that needs more
(say something, then look) goes through a lock, whose instruction is a barrier there; `available()` says where.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from collections import deque
from typing import Any, Deque, Generator, List, Optional, Sequence, Tuple, Union

import zmq

from bulkhead import wire
from bulkhead.ring_memory import Segment, available, check_segment, is_ring_size, make_segment
from bulkhead.ring_records import frames_at, record_of

CAPABILITY = "ring"
RING_BYTES = 1 << 20
_GREETING = b"bulkring 1"
# Places in the header, in words of 8 and of 4 bytes.
_HEAD, _TAIL = 64 // 8, 128 // 8
_SPACE_ASKS, _SLEEPS = 72 // 4, 136 // 4
_WORD = 0xFFFFFFFF
_SNDMORE = int(zmq.SNDMORE)  # an enum is slow
_IMPOSSIBLE_HEAD = "the peer's ring has an impossible head"


class PeerGone(ConnectionError):
    """The other side has closed, or its process has ended; all it had sent was received."""


def connect(path: str, ring_bytes: int = RING_BYTES) -> "RingSocket":
    """To the listener at that path, of this user; OSError when there is none."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(path)
        _, user, _ = struct.unpack("iii", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if user != os.geteuid():
            raise PermissionError(f"a process of user {user} listens at {path}; this run's is {os.geteuid()}")
        return RingSocket(connection, ring_bytes)
    except BaseException:
        connection.close()
        raise


class RingSocket:
    """One end.  `connection` is a connected AF_UNIX SOCK_SEQPACKET socket, which it takes over."""

    def __init__(self, connection: socket.socket, ring_bytes: int = RING_BYTES) -> None:
        """PeerGone when nobody is at the other end any more; OSError where there is no memory."""
        if not is_ring_size(ring_bytes):
            raise ValueError(f"a ring of {ring_bytes} bytes: it must be a power of two from 4 KiB to 64 MiB")
        connection.setblocking(False)
        self._connection = connection
        self._lock = threading.Lock()  # its instructions are the barrier
        self._gone = False  # the connection has ended
        # Sending: what is ours alone, and what of the peer was read last.
        self._head = self._peer_tail = 0
        self._woken = 0  # the peer's sleep that was ended last
        self._parts: List[bytes] = []  # of the message that `send` collects
        self._outbox: Deque[memoryview] = deque()  # records, for want of room
        # Receiving.
        self._peer_head = self._tail = self._given_back = 0
        self._answered = 0  # the peer's request for room that was served last
        self._partial: Optional[Generator[None, None, List[bytes]]] = None
        # The memory and the bells; the peer's once they have come.
        self._peer: Optional[Segment] = None
        self._peer_bell = -1
        self._bell = -1
        self._own, memory = make_segment(ring_bytes)
        try:
            self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            socket.send_fds(connection, [_GREETING], [memory, self._bell])
        except (BrokenPipeError, ConnectionResetError):
            self.close()
            raise PeerGone("the peer has gone") from None
        except OSError:
            self.close()
            raise
        finally:
            os.close(memory)

    def descriptors(self) -> Tuple[int, int]:
        """One of them is readable when there is something to receive, room to send, or the end."""
        return self._bell, self._connection.fileno()

    # ----- As a ZeroMQ socket -----

    def send(self, part: Any, flags: int = 0, copy: bool = True) -> None:
        """Queues a frame, which may change afterwards, and with the last one its message; PeerGone."""
        del copy
        self._parts.append(part if type(part) is bytes else bytes(part))
        if not flags & _SNDMORE:
            parts, self._parts = self._parts, []
            self.send_message(parts)

    def send_message(self, parts: Sequence[bytes]) -> None:
        """Queues a message of these frames; PeerGone."""
        record = record_of(parts)
        if self._gone:
            raise PeerGone("the peer has gone")
        if self._outbox:
            self._outbox.append(memoryview(record))
            return
        put = self._put(record)
        if put < len(record):
            self._outbox.append(memoryview(record)[put:])
            self._flush()

    def recv_multipart(self, flags: int = 0) -> List[bytes]:
        """As receive(), but zmq.Again instead of None."""
        del flags
        message = self.receive()
        if message is None:
            raise zmq.Again()
        return message

    def receive(self) -> Optional[List[bytes]]:
        """The frames of the next message, or None; PeerGone after the last, Malformed from a peer that lies."""
        if self._outbox:
            self._flush()
        while True:
            if self._peer is not None:
                message = self._next()
                if message is not None:
                    if self._owes_much():
                        self._give_back()
                    return message
                if self._look():
                    continue
                self._give_back()
            if self._gone:
                raise PeerGone("the peer has gone")
            if not self._silence():  # then the connection may be what woke us
                if self._hear():
                    continue
                if self._peer is None:
                    return None
            elif self._outbox:  # it may have been rung for room since the first look at it
                self._flush()
            if not self._fall_asleep():
                return None

    def has_news(self) -> bool:
        """Whether the peer has put in more than was taken out: for who would rather look again than sleep."""
        return self._peer is not None and self._peer.longs[_HEAD] != self._tail

    def getsockopt(self, option: int) -> int:
        """zmq.EVENTS: a send never waits, and whether there is something to receive only receive() finds out."""
        if option != zmq.EVENTS:
            raise ValueError(f"a ring has no option {option}")
        return zmq.POLLIN | zmq.POLLOUT

    def close(self, linger: int = 0) -> None:
        """Again is fine.  What is in the ring reaches the peer; `linger` ms for what waits for room in it."""
        if self._connection.fileno() < 0:
            return
        if linger > 0:
            self._linger(time.monotonic() + linger / 1000)
        self._connection.close()
        for bell in (self._bell, self._peer_bell):
            if bell >= 0:
                os.close(bell)
        self._bell = self._peer_bell = -1
        self._own.close()
        if self._peer is not None:
            self._peer.close()
            self._peer = None
        self._gone = True

    # ----- Sending -----

    def _put(self, record: Union[bytes, memoryview]) -> int:
        """How many bytes of it there was room for; wakes the peer if it sleeps."""
        own, size = self._own, len(record)
        free = own.size - (self._head - self._peer_tail)
        if free < size:
            self._read_tail()
            free = own.size - (self._head - self._peer_tail)
            if free < size:
                record, size = memoryview(record)[:free], free
        at = self._head & own.mask
        before_end = own.size - at
        if size <= before_end:
            own.ring[at : at + size] = record
        else:
            own.ring[at:] = record[:before_end]
            own.ring[: size - before_end] = record[before_end:]
        self._head += size
        own.longs[_HEAD] = self._head
        if self._peer is not None:
            self._barrier()
            self._wake_sleeper()
        return size

    def _flush(self) -> None:
        while self._outbox:
            record = self._outbox[0]
            put = self._put(record)
            if put == len(record):
                self._outbox.popleft()
                continue
            self._outbox[0] = record[put:]
            self._own.words[_SPACE_ASKS] = (self._own.words[_SPACE_ASKS] + 1) & _WORD
            self._barrier()
            if not self._read_tail():
                return

    def _read_tail(self) -> bool:
        """Whether the peer has given room back."""
        if self._peer is None:
            return False
        tail = self._peer.longs[_TAIL]
        if tail == self._peer_tail:
            return False
        if not self._peer_tail < tail <= self._head:
            raise wire.Malformed("the peer says that it has read what nobody sent")
        self._peer_tail = tail
        return True

    def _wake_sleeper(self) -> None:
        sleeps = self._peer.words[_SLEEPS]
        if sleeps != self._woken:
            self._woken = sleeps
            self._ring()

    def _ring(self) -> None:
        try:
            os.eventfd_write(self._peer_bell, 1)
        except BlockingIOError:  # the counter is full: it is awake anyway
            pass

    def _linger(self, deadline: float) -> None:
        poll = select.poll()
        for descriptor in self.descriptors():
            poll.register(descriptor, select.POLLIN)
        while self._outbox and not self._gone and time.monotonic() < deadline:
            self._silence()
            self._hear()
            self._flush()
            if self._outbox:
                poll.poll(max(0.0, deadline - time.monotonic()) * 1000)

    # ----- Receiving -----

    def _next(self) -> Optional[List[bytes]]:
        """The next whole message of what was seen of the peer's ring."""
        if self._partial is None:
            seen = self._peer_head - self._tail
            if seen < 8:  # no record is shorter, and the first words of one never lie across the end
                return None
            at = self._tail & self._peer.mask
            found = frames_at(self._peer.ring, at, min(seen, self._peer.size - at))
            if found is not None:
                frames, size = found
                self._tail += size
                return frames
            self._partial = self._read_record()
        try:
            next(self._partial)
            return None
        except StopIteration as done:
            self._partial = None
            return done.value

    def _read_record(self) -> Generator[None, None, List[bytes]]:
        """A record of any kind, as its bytes come; yields when it needs more."""
        count = int.from_bytes((yield from self._read(4)), "little")
        if not 1 <= count <= wire.MAX_FRAMES:
            raise wire.Malformed(f"the peer's ring has a message of {count} frames")
        lengths = struct.unpack(f"<{count}I", (yield from self._read(4 * count)))
        if max(lengths) > wire.MAX_FRAME:
            raise wire.Malformed(f"the peer's ring has a frame of {max(lengths)} bytes")
        frames = []
        for length in lengths:
            frames.append((yield from self._read(length)))
        yield from self._read(-(4 + 4 * count + sum(lengths)) % 8)
        return frames

    def _read(self, size: int) -> Generator[None, None, bytes]:
        """Takes memory only for what has come."""
        pieces = []
        while True:
            now = min(size, self._peer_head - self._tail)
            pieces.append(self._copy(self._tail, now))
            self._tail += now
            size -= now
            if self._owes_much():
                self._give_back()
            if size == 0:
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)
            yield

    def _copy(self, place: int, size: int) -> bytes:
        ring = self._peer.ring
        at = place & self._peer.mask
        before_end = self._peer.size - at
        if size <= before_end:
            return ring[at : at + size].tobytes()
        return ring[at:].tobytes() + ring[: size - before_end].tobytes()

    def _look(self) -> bool:
        """Whether more has come."""
        head = self._peer.longs[_HEAD]
        if head == self._peer_head:
            return False
        if head < self._peer_head or head - self._given_back > self._peer.size:
            raise wire.Malformed(_IMPOSSIBLE_HEAD)
        self._peer_head = head
        return True

    def _owes_much(self) -> bool:
        return self._tail - self._given_back >= self._peer.size // 4

    def _give_back(self) -> None:
        if self._tail == self._given_back:
            return
        self._own.longs[_TAIL] = self._given_back = self._tail
        self._barrier()
        asks = self._peer.words[_SPACE_ASKS]
        if asks != self._answered:
            self._answered = asks
            self._ring()

    def _silence(self) -> bool:
        """Whether the bell had been rung."""
        try:
            os.eventfd_read(self._bell)
            return True
        except BlockingIOError:
            return False

    def _fall_asleep(self) -> bool:
        """Says that it sleeps; True when it must not."""
        self._own.words[_SLEEPS] = (self._own.words[_SLEEPS] + 1) & _WORD
        self._barrier()
        return self._look()

    def _barrier(self) -> None:
        """What was stored before is visible before anything after is loaded."""
        self._lock.acquire()
        self._lock.release()

    # ----- The connection -----

    def _hear(self) -> bool:
        """Whether something has come over the connection: the peer's descriptors, or its end."""
        try:
            packet, descriptors, flags, _ = self._receive_fds()
        except BlockingIOError:
            return False
        except OSError:
            packet, descriptors, flags = b"", [], 0
        try:
            if not packet and not descriptors:
                self._gone = True
                if self._peer is not None:
                    self._look()
                return True
            if self._peer is not None:
                raise wire.Malformed("the peer sent more than its ring over the socket")
            if packet != _GREETING or len(descriptors) != 2 or flags & socket.MSG_CTRUNC:
                raise wire.Malformed("the peer's ring: its greeting is another's")
            self._join(*descriptors)
            descriptors = descriptors[:1]
            return True
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _receive_fds(self) -> tuple:
        for again in (True, False):
            try:
                return socket.recv_fds(self._connection, 64, 8, socket.MSG_CMSG_CLOEXEC)
            except ConnectionResetError:  # in front of what a peer has sent that closed before it read everything
                if not again:
                    raise
        raise AssertionError

    def _join(self, memory: int, bell: int) -> None:
        size = check_segment(memory)
        if os.readlink(f"/proc/self/fd/{bell}") != "anon_inode:[eventfd]":  # a write to anything else may block
            raise wire.Malformed("the peer's ring: its bell is not an eventfd")
        os.set_blocking(bell, False)
        self._peer = Segment(memory, size, writable=False)
        self._peer_bell = bell
        self._wake_sleeper()
