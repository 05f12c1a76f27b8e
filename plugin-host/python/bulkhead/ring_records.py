"""Messages as records of a ring (protocol/README.md, "Ring"): count, lengths, frames, padding.  Pure functions."""

from __future__ import annotations

import struct
from typing import List, Optional, Sequence, Tuple

from bulkhead import wire

PADDING = [bytes(-size % 8) for size in range(8)]
FEW_FRAMES = 16  # a message of as many is read at once where it is there whole
_TWO_WORDS = struct.Struct("<II")


def record_of(frames: Sequence[bytes]) -> bytes:
    """ValueError for a message over the limits."""
    if len(frames) == 1:
        frame = frames[0]
        longest = len(frame)
        record = _TWO_WORDS.pack(1, longest) + frame + PADDING[longest % 8]
    else:
        sizes = [len(frame) for frame in frames]
        longest = max(sizes)
        record = b"".join([struct.pack(f"<{len(frames) + 1}I", len(frames), *sizes), *frames])
        record += PADDING[len(record) % 8]
    if len(frames) > wire.MAX_FRAMES or longest > wire.MAX_FRAME:
        raise ValueError(f"a message of {len(record)} bytes is over the limits")
    return record


def frames_at(ring: memoryview, at: int, whole: int) -> Optional[Tuple[List[bytes], int]]:
    """The message whose record begins at `at`, and the record's size; None where it is not within the `whole` bytes
    (8 or more) that are there in one piece, has many frames, or breaks a limit."""
    count, length = _TWO_WORDS.unpack_from(ring, at)
    if count == 1:
        size = 8 + length + -length % 8
        if size > whole or length > wire.MAX_FRAME:
            return None
        return [ring[at + 8 : at + 8 + length].tobytes()], size
    begin = 4 + 4 * count
    if not 1 < count <= FEW_FRAMES or begin > whole:
        return None
    lengths = struct.unpack_from(f"<{count}I", ring, at + 4)
    size = begin + sum(lengths)
    size += -size % 8
    if size > whole or max(lengths) > wire.MAX_FRAME:
        return None
    frames, place = [], at + begin
    for length in lengths:
        frames.append(ring[place : place + length].tobytes())
        place += length
    return frames, size
