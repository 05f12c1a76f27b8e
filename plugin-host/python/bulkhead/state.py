"""The state of a plugin as bytes, without pickle: loading a checkpoint runs no code of the one who wrote it.

Carried are None, bool, int (of any size), float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset,
deque, OrderedDict, Counter, defaultdict (of a built-in type), pathlib paths, random.Random, numpy arrays, scalars
and generators, torch tensors and CPU generators, nested at will.  Types are exact: a subclass would come back as
something else, so it is refused.  Objects that two places share come back as two.  Pure functions.
"""

from __future__ import annotations

import pathlib
import random
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any, Callable, Dict, List, Tuple

import msgpack

from bulkhead import tensor_state, wire

_PLAIN = frozenset((type(None), bool, float, str, bytes))
_FACTORIES = {kind.__name__: kind for kind in (bool, bytes, dict, float, int, list, set, str, tuple)}


class NotCarried(TypeError):
    """A value that the state cannot hold; the message names its type."""


# ----- The kinds beyond msgpack's own: code, value → simpler value, and back -----


def _sorted(items: Any) -> list:
    # A set's order depends on the process's hash seed; equal states shall be equal bytes.
    return sorted(items, key=lambda item: msgpack.packb(_plain(item)))


def _default_dict(value: defaultdict) -> list:
    factory = value.default_factory
    name = "" if factory is None else getattr(factory, "__name__", "?")
    if factory is not None and _FACTORIES.get(name) is not factory:
        raise NotCarried("a defaultdict whose default is not a built-in type")
    return [name, dict(value)]


def _random(state: list) -> random.Random:
    generator = random.Random()
    generator.setstate(state)
    return generator


_KINDS: Dict[type, Tuple[int, Callable[[Any], Any], Callable[[Any], Any]]] = {
    int: (1, lambda v: v.to_bytes(v.bit_length() // 8 + 1, "little", signed=True),
          lambda p: int.from_bytes(p, "little", signed=True)),
    tuple: (2, list, tuple),
    set: (3, _sorted, set),
    frozenset: (4, _sorted, frozenset),
    bytearray: (5, bytes, bytearray),
    complex: (6, lambda v: [v.real, v.imag], lambda p: complex(*p)),
    deque: (7, lambda v: [list(v), v.maxlen], lambda p: deque(*p)),
    OrderedDict: (8, dict, OrderedDict),
    Counter: (9, dict, Counter),
    defaultdict: (10, _default_dict, lambda p: defaultdict(_FACTORIES.get(p[0]), p[1])),
    pathlib.PosixPath: (11, str, pathlib.Path),
    pathlib.PurePosixPath: (12, str, pathlib.PurePosixPath),
    random.Random: (13, lambda v: v.getstate(), _random),
    **tensor_state.NUMPY_KINDS,
}  # fmt: skip
_BACK = {code: back for code, _, back in _KINDS.values()}
_BACK.update(tensor_state.OTHER_BACK)


# ----- Values and bytes -----


def pack(value: Any) -> bytes:
    """NotCarried, with a sentence's worth of reason, when something in it cannot be carried."""
    try:
        return msgpack.packb(_plain(value))
    except (RecursionError, ValueError) as error:  # msgpack nests 511 deep; a string may hold lone surrogates
        if isinstance(error, UnicodeError):
            raise NotCarried("a string that is not valid Unicode") from None
        raise NotCarried("something that refers to itself or is nested too deeply") from None


def unpack(data: bytes) -> Any:
    """What pack() was given; ValueError when `data` is not from pack()."""
    try:
        return msgpack.unpackb(data, strict_map_key=False, ext_hook=_unpack_kind)
    except (ValueError, TypeError, KeyError, AttributeError, msgpack.exceptions.UnpackException) as error:
        raise ValueError(f"the state is not one that this host can read: {error}") from None


def _unpack_kind(code: int, data: bytes) -> Any:
    if code not in _BACK:
        raise ValueError(f"kind {code} is not known")
    return _BACK[code](unpack(data))


def _plain(value: Any) -> Any:
    """`value` in msgpack's own types and ExtType."""
    kind = type(value)
    if kind in _PLAIN or (kind is int and -(2**63) <= value < 2**64):
        return value
    if kind is list:
        return [_plain(item) for item in value]
    if kind is dict:
        return {_key(key): _plain(item) for key, item in value.items()}
    if kind in _KINDS:
        code, simpler, _ = _KINDS[kind]
    else:
        found = tensor_state.kind_of(value)
        if found is None:
            raise NotCarried(wire.a(kind))
        code, simpler = found
    return msgpack.ExtType(code, msgpack.packb(_plain(simpler(value))))


def _key(key: Any) -> Any:
    return key if type(key) is str else _plain(key)


# ----- The default state: a plugin's attributes -----


def _attributes(plugin: Any) -> Dict[str, Any]:
    names = list(getattr(plugin, "__dict__", {}))
    for cls in type(plugin).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        names.extend((slots,) if isinstance(slots, str) else slots)
    left_out = {"__dict__", "__weakref__", *type(plugin).transient}
    return {name: getattr(plugin, name) for name in names if name not in left_out and hasattr(plugin, name)}


def attributes_of(plugin: Any) -> Dict[str, Any]:
    """Name → value of every attribute that can be carried and is not transient."""
    return {name: value for name, value in _attributes(plugin).items() if not _why_not(value)}


def left_out(plugin: Any) -> List[Tuple[str, str]]:
    """(attribute, what it holds) for those that should be carried and cannot."""
    reasons = ((name, _why_not(value)) for name, value in _attributes(plugin).items())
    return [(name, why) for name, why in reasons if why]


def restore_attributes(plugin: Any, attributes: Any) -> None:
    """Makes the carried attributes those of `attributes`; one that is not in it is deleted."""
    if not isinstance(attributes, dict) or not all(isinstance(name, str) for name in attributes):
        raise TypeError("the state is not a dict of attributes; a class with its own state_dict needs load_state_dict")
    for name, value in _attributes(plugin).items():
        if name not in attributes and not _why_not(value):
            object.__delattr__(plugin, name)
    for name, value in attributes.items():
        object.__setattr__(plugin, name, value)


def _why_not(value: Any) -> str:
    try:
        pack(value)
    except NotCarried as error:
        return str(error)
    return ""
