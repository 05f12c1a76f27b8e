"""Shared memory between this host and its worker: tensors travel as places (protocol/README.md, "Shared memory").

What the worker has written is mapped for reading; for torch, which has no read-only tensors, a second time
copy-on-write, so that a stray write changes pages of this process only; and where the worker gives leave to change a
tensor where it lies, a third time for that.  What this host writes lies in segments of its own, which nobody else can
write to.  Used on the host's one thread.
"""

from __future__ import annotations

import fcntl
import heapq
import math
import mmap
import os
import socket
import struct
import weakref
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

from bulkhead.wire import Malformed

CAPABILITY = "memory"
WORTH_SHARING = 4096  # bytes; smaller tensors are as quick to send as to name

_MAX_SEGMENTS = 4096
_SMALLEST_SLOT = 4 << 10
_BLOCK = 512  # bytes, of stat
_LARGEST_SHARED = 1 << 20  # of slots that share a segment
_SHARED_SEGMENT = 4 << 20
_NUMBER = struct.Struct("<q")
_FUTURE_WRITE = 0x10  # Linux 5.1; the fcntl module lacks it
_SIZE_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_PRESENT, _OF_FILE = np.uint64(1 << 63), np.uint64(1 << 61)  # bits of /proc/self/pagemap

Key = Tuple[int, int]  # segment, offset


def most_bytes() -> int:
    """What the segments of this process may take: a quarter of the machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4


def address_of(array: np.ndarray) -> int:
    """Where its first element lies."""
    return array.__array_interface__["data"][0]


class _Segment:
    """A mapped memfd.  `bytes` is all of it; whoever has a view of it keeps it mapped."""

    def __init__(self, fd: int, size: int, flags: int, protection: int) -> None:
        self.fd = fd
        self.map = mmap.mmap(fd, size, flags, protection)
        self.bytes = np.frombuffer(self.map, dtype=np.uint8)
        self.address = address_of(self.bytes)
        self.size = size

    def holds(self, address: int) -> bool:
        return self.address <= address < self.address + self.size

    def close(self) -> None:
        os.close(self.fd)


class _Shown(_Segment):
    """A segment of the worker's."""

    def __init__(self, fd: int, size: int, writable: bool) -> None:
        super().__init__(fd, size, mmap.MAP_SHARED, mmap.PROT_READ)
        self._writable = writable
        self._private: Optional[_Segment] = None
        self._open: Optional[_Segment] = None

    def private(self) -> _Segment:
        """The same bytes, copy-on-write."""
        if self._private is None:
            self._private = _Segment(self.fd, self.size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
        return self._private

    def open(self) -> Optional[_Segment]:
        """The same bytes, to be written to; None where the worker gives no leave."""
        if self._open is None and self._writable:
            self._open = _Segment(self.fd, self.size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        return self._open


class _Pool(_Segment):
    """A segment of this host, cut into slots of one size."""

    def __init__(self, size: int, slot: int) -> None:
        fd = os.memfd_create("bulkhead-arena", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.posix_fallocate(fd, 0, size)  # a full machine is an error here and no signal later
            super().__init__(fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SIZE_SEALS | _FUTURE_WRITE)
        except OSError:
            os.close(fd)
            raise
        self.slot = slot
        self.free = list(range(0, size, slot))  # offsets, a heap: what was used is used again first


class Memory:
    """One connection's places: the worker's found, this host's named.

    Slots belong to the call that took them until they are named in its reply, then to the worker until it gives them
    back.
    """

    def __init__(self, path: str) -> None:
        """Connects to where the worker listens; OSError when it does not."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise
        self._socket.setblocking(False)
        self._begun = False
        self._peers: Dict[int, _Shown] = {}
        self._pools: Dict[int, _Pool] = {}
        self._shown: set = set()
        self._gone: List[int] = []
        self._reserved = 0
        self._numbers = 0
        self._named: Dict[Key, int] = {}  # how often
        self._lent: List[Tuple[Key, weakref.ref]] = []  # of the worker's, to the call that runs
        self._unused: List[Key] = []
        self._taken: List[Key] = []  # by the call that runs
        self._pagemap = -1

    def close(self) -> None:
        """Again is fine.  What plugins still look at stays mapped."""
        self._socket.close()
        for segment in (*self._peers.values(), *self._pools.values()):
            segment.close()
        self._peers, self._pools = {}, {}
        if self._pagemap >= 0:
            os.close(self._pagemap)
            self._pagemap = -1

    # ----- The worker's memory -----

    def news(self, unused: Sequence[Key], gone: Sequence[int]) -> None:
        """The worker reads these no more, and names nothing in those any more.  Malformed when that cannot be."""
        self._begun = True
        for key in unused:
            if key not in self._named:
                raise Malformed("memory is given back that the worker was not given")
            self._named[key] -= 1
            if not self._named[key]:
                del self._named[key]
                self._release(key)
        for number in gone:
            segment = self._peers.pop(number, None)
            if segment is not None:
                segment.close()

    def find(self, place: Key, size: int, itemsize: int) -> np.ndarray:
        """These bytes of the worker's, read-only; Malformed when they are not there."""
        number, offset = place
        if number not in self._peers:
            self._receive()
            if number not in self._peers:
                raise Malformed("names a segment that was not shown")
        segment = self._peers[number]
        if offset < 0 or size > segment.size - offset:
            raise Malformed("names bytes beyond the end of their segment")
        if offset % itemsize:
            raise Malformed("is not aligned")
        view = segment.bytes[offset : offset + size]
        self._lent.append((place, weakref.ref(view)))
        return view

    def held(self) -> List[Key]:
        """Of what came with this call, what somebody still looks at.  The rest goes back with the reply."""
        held = []
        for place, reference in self._lent:
            view = reference()
            if view is not None:
                held.append(place)
                weakref.finalize(view, self._unused.append, place).atexit = False
        self._lent.clear()
        return held

    def take_unused(self) -> List[Key]:
        """Of what was held, what is looked at no more."""
        unused, self._unused[:] = list(self._unused), []
        return unused

    def writable(self, view: np.ndarray) -> np.ndarray:
        """What find() gave, as memory that may be written to by mistake: the worker's bytes stay whole."""
        segment = self._shown_with(view)
        return _same(view, segment, segment.private())

    def in_place(self, view: np.ndarray) -> Optional[np.ndarray]:
        """What find() gave, to be changed where it lies; None where the worker gives no leave."""
        segment = self._shown_with(view)
        opened = segment.open()
        return None if opened is None else _same(view, segment, opened)

    def was_written(self, view: np.ndarray) -> bool:
        """Whether that mistake was made in what writable() gave."""
        start, size = _pages(view)
        if self._pagemap < 0:
            self._pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        count = -(-size // mmap.PAGESIZE)
        flags = np.frombuffer(os.pread(self._pagemap, count * 8, start // mmap.PAGESIZE * 8), dtype=np.uint64)
        return bool(np.any((flags & (_PRESENT | _OF_FILE)) == _PRESENT))  # a page of its own, no more the file's

    def undo(self, view: np.ndarray) -> None:
        """From now on what writable() gave shows the worker's bytes again."""
        start, size = _pages(view)
        private = next(found for shown in self._peers.values() if (found := shown.private()).holds(start))
        private.map.madvise(mmap.MADV_DONTNEED, start - private.address, size)

    def _shown_with(self, view: np.ndarray) -> _Shown:
        address = address_of(view)
        return next(segment for segment in self._peers.values() if segment.holds(address))

    def _receive(self) -> None:
        while True:
            try:
                packet, fds, _, _ = socket.recv_fds(self._socket, _NUMBER.size, 1)
            except BlockingIOError:
                return
            except OSError as error:
                raise Malformed(f"memory cannot be shown: {error}") from None
            if not packet:
                return
            if len(packet) != _NUMBER.size or len(fds) != 1:
                raise Malformed("memory is shown without its number or descriptor")
            self._adopt(_NUMBER.unpack(packet)[0], fds[0])

    def _adopt(self, number: int, fd: int) -> None:
        try:
            seals, stat = fcntl.fcntl(fd, fcntl.F_GET_SEALS), os.fstat(fd)
            size, is_there = stat.st_size, stat.st_blocks * _BLOCK >= stat.st_size
        except OSError:
            seals, size, is_there = 0, 0, False
        sealed = seals & _SIZE_SEALS == _SIZE_SEALS and is_there
        if not sealed or size <= 0 or number in self._peers or len(self._peers) >= _MAX_SEGMENTS:
            os.close(fd)
            raise Malformed("memory is shown that is not sealed, not allocated, empty, shown already or too much")
        try:
            self._peers[number] = _Shown(fd, size, not seals & _FUTURE_WRITE)
        except OSError as error:
            os.close(fd)
            raise Malformed(f"{size} bytes of shared memory cannot be mapped: {error}") from None

    # ----- This host's memory -----

    def empty(self, shape: Sequence[int], dtype: np.dtype) -> Optional[np.ndarray]:
        """An array in a slot, with whatever was there before; None when it is not worth it or there is no room."""
        size = math.prod(shape) * dtype.itemsize
        slot = self._take(size) if self._begun and size >= WORTH_SHARING else None
        return None if slot is None else slot.view(dtype).reshape(shape)

    def name(self, array: np.ndarray) -> Optional[dict]:
        """Where the worker finds this array, which must lie in a slot of this call; None when it does not."""
        address = address_of(array)
        for number, pool in self._pools.items():
            offset = address - pool.address
            if 0 <= offset < pool.size:
                key = (number, offset)
                if key not in self._taken or not array.flags.c_contiguous or not self._show(number, pool):
                    return None
                self._named[key] = self._named.get(key, 0) + 1
                return {"segment": number, "offset": offset}
        return None

    def end_call(self) -> List[int]:
        """Slots that were not named are free again.  Segments that the worker may forget."""
        for key in self._taken:
            if key not in self._named:
                self._release(key)
        self._taken.clear()
        gone, self._gone = self._gone, []
        return gone

    def _take(self, size: int) -> Optional[np.ndarray]:
        slot = _slot_size(size)
        for number, pool in self._pools.items():
            if pool.slot == slot and pool.free:
                break
        else:
            made = self._make(slot)
            if made is None:
                return None
            number, pool = made
        offset = heapq.heappop(pool.free)
        self._taken.append((number, offset))
        return pool.bytes[offset : offset + size]

    def _make(self, slot: int) -> Optional[Tuple[int, _Pool]]:
        size = max(slot, _SHARED_SEGMENT) if slot <= _LARGEST_SHARED else slot
        if self._reserved + size > most_bytes():
            self._drop_idle()
        if self._reserved + size > most_bytes():
            return None
        try:
            pool = _Pool(size, slot)
        except OSError:
            return None  # the bytes are sent instead
        self._reserved += size
        self._numbers += 1
        self._pools[self._numbers] = pool
        return self._numbers, pool

    def _drop_idle(self) -> None:
        for number, pool in list(self._pools.items()):
            if len(pool.free) * pool.slot == pool.size:
                del self._pools[number]
                pool.close()
                self._reserved -= pool.size
                if number in self._shown:
                    self._shown.discard(number)
                    self._gone.append(number)

    def _show(self, number: int, pool: _Pool) -> bool:
        if number not in self._shown:
            try:
                socket.send_fds(self._socket, [_NUMBER.pack(number)], [pool.fd])
            except OSError:
                return False
            self._shown.add(number)
        return True

    def _release(self, key: Key) -> None:
        pool = self._pools.get(key[0])
        if pool is not None:
            heapq.heappush(pool.free, key[1])


def _same(view: np.ndarray, segment: _Segment, other: _Segment) -> np.ndarray:
    """The same bytes in another mapping of a segment."""
    offset = address_of(view) - segment.address
    return other.bytes[offset : offset + view.nbytes]


def _pages(view: np.ndarray) -> Tuple[int, int]:
    """(address, bytes) from the beginning of its first page."""
    start = address_of(view) & -mmap.PAGESIZE
    return start, address_of(view) + view.nbytes - start


def _slot_size(size: int) -> int:
    """Powers of two, and above 1 MiB four steps between two of them."""
    power = max(_SMALLEST_SLOT, 1 << (size - 1).bit_length())
    if power <= _LARGEST_SHARED:
        return power
    step = power // 8
    return -(-size // step) * step
