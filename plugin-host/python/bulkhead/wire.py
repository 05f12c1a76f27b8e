"""Frames: the msgpack envelope, the bytes after it, and the limits of both (protocol/README.md).

decode() trusts nothing: whatever is wrong is Malformed, nothing else is raised, and no more memory is taken than
the frames have.  Pure functions.
"""

from __future__ import annotations

from typing import Any, List, Sequence

import msgpack
import numpy as np

CHUNK = 1 << 20
MAX_FRAME = 4 << 20
MAX_FRAMES = 65536
MAX_TENSORS = 4096
MAX_DIMS = 8
MAX_ITEMS = 65536
MAX_DEPTH = 32
MAX_TEXT = 1 << 20

_INT64 = range(-(2**63), 2**63)

# Wire name → numpy type.  numpy has no bfloat16 of its own: its bits are seen as uint16.
DTYPES = {
    "bool": np.dtype("bool"),
    "uint8": np.dtype("uint8"),
    "int8": np.dtype("int8"),
    "int16": np.dtype("<i2"),
    "int32": np.dtype("<i4"),
    "int64": np.dtype("<i8"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
}


class Malformed(Exception):
    """What came over the wire breaks the protocol; the message says where."""


# ----- Envelopes -----


def pack(envelope: dict) -> bytes:
    packed = msgpack.packb(envelope)
    if len(packed) > MAX_FRAME:
        raise ValueError(f"a message of {len(packed)} bytes is over the limit of {MAX_FRAME}")
    return packed


def unpack(frames: Sequence[bytes]) -> dict:
    """The envelope in frame 0, a map with string keys and a type; Malformed otherwise."""
    if not frames:
        raise Malformed("no frame")
    if len(frames) > MAX_FRAMES:
        raise Malformed("too many frames")
    for frame in frames:
        if len(frame) > MAX_FRAME:
            raise Malformed("a frame is too large")
    try:
        envelope = msgpack.unpackb(
            frames[0],
            max_str_len=MAX_TEXT,
            max_bin_len=0,
            max_ext_len=0,
            max_array_len=MAX_ITEMS,
            max_map_len=MAX_ITEMS,
        )
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise Malformed(f"not an envelope: {error}") from None
    if type(envelope) is not dict:
        raise Malformed("the envelope is not a map")
    if type(envelope.get("type")) is not str:
        raise Malformed("the envelope has no type")
    return envelope


# ----- Bytes after the envelope -----


def chunks(data: Any) -> List[memoryview]:
    """`data`, anything with contiguous bytes, as views of at most CHUNK bytes."""
    view = memoryview(data)
    if view.nbytes == 0:  # cannot be cast
        return []
    view = view.cast("B")
    return [view[at : at + CHUNK] for at in range(0, len(view), CHUNK)]


class Bytes:
    """Hands out the frames after the envelope, in order."""

    def __init__(self, frames: Sequence[bytes]) -> None:
        self._frames = frames
        self._next = 1

    def take(self, size: int) -> bytes:
        """The next `size` bytes, immutable; Malformed when the frames say otherwise."""
        count = -(-size // CHUNK)
        frames = self._frames[self._next : self._next + count]
        if len(frames) < count:
            raise Malformed("has fewer frames than its size says")
        if sum(map(len, frames)) != size:
            raise Malformed("has frames of another size than its shape says")
        self._next += count
        return frames[0] if count == 1 else b"".join(frames)

    def finish(self) -> None:
        if self._next != len(self._frames):
            raise Malformed("frames are left over")


def tensor_size(dtype: str, shape: Sequence[int]) -> int:
    """In bytes; Malformed for an unknown type or an impossible shape."""
    if dtype not in DTYPES:
        raise Malformed(f'"{dtype[:64]}" is not a tensor type')
    if len(shape) > MAX_DIMS:
        raise Malformed("has too many dimensions")
    size = DTYPES[dtype].itemsize
    for extent in shape:
        if extent < 0:
            raise Malformed("has a negative extent")
        size *= extent
    if size > MAX_FRAMES * CHUNK:
        raise Malformed("is too large")
    return size


def span(dtype: str, shape: Sequence[int], strides: Sequence[int]) -> int:
    """Bytes from the first element to the end of the last, 0 where there is none; tensor_size() has passed the shape.

    Malformed for strides (in elements) that do not fit.
    """
    if len(strides) != len(shape) or any(stride < 0 for stride in strides):
        raise Malformed("has strides that do not fit its shape")
    if 0 in shape:
        return 0
    last = sum((extent - 1) * stride for extent, stride in zip(shape, strides))
    if last > MAX_FRAMES * CHUNK:
        raise Malformed("is too large")
    return (last + 1) * DTYPES[dtype].itemsize


# ----- Values that a plugin gave -----


def a(kind: type) -> str:
    """A type for people: "an object", "a torch.nn.Linear"."""
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def clean_text(text: str, limit: int) -> str:
    """`text` as it can be sent: valid Unicode, at most `limit` characters."""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-8", "replace").decode()
    return text


def to_float(value: Any, what: str) -> float:
    """A number, also numpy's and a tensor of one element; TypeError otherwise, beginning with `what`."""
    item = getattr(value, "item", None)
    if item is not None and getattr(value, "size", None) is not None:
        try:
            value = item()
        except (ValueError, RuntimeError):
            raise TypeError(f"{what} has more than one element; give a single number") from None
    if isinstance(value, (bool, int, float)):
        return float(value)
    raise TypeError(f"{what} is {a(type(value))}, not a number")


def to_value(value: Any, what: str, depth: int = 0) -> Any:
    """`value` as the envelope carries it: None, bool, int, float, str, lists and maps of these; numpy converted.

    TypeError for another type, ValueError beyond a limit; both sentences begin with `what`.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        if int(value) not in _INT64:
            raise ValueError(f"{what}: {value} does not fit in 64 bits")
        return int(value)
    if isinstance(value, str):
        return clean_text(value, MAX_TEXT // 4)
    if depth >= MAX_DEPTH - 4:  # what is left belongs to the envelope around it
        raise ValueError(f"{what} is nested too deeply")
    if isinstance(value, (list, tuple)):
        _check_items(value, what)
        return [to_value(item, what, depth + 1) for item in value]
    if isinstance(value, dict):
        _check_items(value, what)
        return {_key(key, what): to_value(item, what, depth + 1) for key, item in value.items()}
    raise TypeError(f"{what}: {a(type(value))} cannot be sent; use numbers, strings, lists and dicts")


def _check_items(value: Any, what: str) -> None:
    if len(value) > MAX_ITEMS:
        raise ValueError(f"{what} holds {len(value)} items; at most {MAX_ITEMS} can be sent")


def _key(key: Any, what: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f"{what}: the key {key!r} is not a string")
    return clean_text(key, MAX_TEXT // 4)


def name_of(dtype: np.dtype) -> str:
    """Its wire name, also of the bfloat16 that the package ml_dtypes has; empty when the wire has no such type."""
    return dtype.name if dtype.name in DTYPES else ""
