"""The memory of a ring (protocol/README.md, "Ring"): a memfd that one process writes and the other only reads.

Made sealed; the peer's is checked before it is mapped, so that no page of it can be taken away under us.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import platform
import socket
import sys
from typing import Tuple

from bulkhead import wire

MIN_BYTES, MAX_BYTES = 4096, 64 << 20
_HEADER = 4096
_MAGIC = b"bulkring"
_VERSION = 1
_SEALS = 0x0002 | 0x0004 | 0x0010 | 0x0001  # SHRINK, GROW, FUTURE_WRITE, SEAL


def is_ring_size(size: int) -> bool:
    return MIN_BYTES <= size <= MAX_BYTES and size & (size - 1) == 0


class Segment:
    """The memory of one side: its own, writable, or the peer's."""

    def __init__(self, descriptor: int, ring_bytes: int, writable: bool) -> None:
        access = mmap.PROT_READ | mmap.PROT_WRITE if writable else mmap.PROT_READ
        self._map = mmap.mmap(descriptor, _HEADER + ring_bytes, mmap.MAP_SHARED, access)
        self._all = memoryview(self._map)
        # An item of a cast view is loaded and stored by one instruction.
        self.longs = self._all[:_HEADER].cast("Q")
        self.words = self._all[:_HEADER].cast("I")
        self.ring = self._all[_HEADER:]
        self.size = ring_bytes
        self.mask = ring_bytes - 1

    def close(self) -> None:
        for view in (self.longs, self.words, self.ring, self._all):
            view.release()
        self._map.close()


def make_segment(ring_bytes: int) -> Tuple[Segment, int]:
    """The own segment and its descriptor, sealed, to be passed on and closed."""
    descriptor = os.memfd_create("bulkhead-ring", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.posix_fallocate(descriptor, 0, _HEADER + ring_bytes)
        segment = Segment(descriptor, ring_bytes, writable=True)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    segment.longs[0] = int.from_bytes(_MAGIC, "little")
    segment.words[2] = _VERSION
    segment.words[3] = _HEADER
    segment.longs[2] = ring_bytes
    return segment, descriptor


def check_segment(descriptor: int) -> int:
    """How large the peer's ring is, before it is mapped; Malformed when it could change under us."""
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError:
        raise wire.Malformed("the peer's ring: its memory is not a memfd") from None
    if seals & _SEALS != _SEALS:
        raise wire.Malformed(
            "the peer's ring: its memory is not sealed against shrinking, growing and writing"
        )
    status = os.fstat(descriptor)
    if status.st_blocks * 512 < status.st_size:
        raise wire.Malformed("the peer's ring: its memory is not allocated")
    header = os.pread(descriptor, 24, 0)
    if len(header) < 24 or header[:8] != _MAGIC:
        raise wire.Malformed("the peer's ring: its memory is not a ring")
    version, header_bytes = (int.from_bytes(header[at : at + 4], "little") for at in (8, 12))
    if (version, header_bytes) != (_VERSION, _HEADER):
        raise wire.Malformed(f"the peer's ring: its ring has version {version}, this side speaks {_VERSION}")
    size = int.from_bytes(header[16:24], "little")
    if not is_ring_size(size) or status.st_size != _HEADER + size:
        raise wire.Malformed(
            f"the peer's ring: its memory of {status.st_size} bytes does not hold a ring of {size}"
        )
    return size


def available() -> bool:
    """Whether this Python on this machine may use rings: x86-64, whose loads and stores are in order, and Python 3.10.

    Anywhere else the ring is not offered and ZeroMQ carries everything.
    """
    return (
        sys.platform == "linux"
        and platform.machine() == "x86_64"
        and sys.maxsize > 2**32
        and hasattr(os, "eventfd")
        and hasattr(os, "memfd_create")
        and hasattr(socket, "recv_fds")
    )
