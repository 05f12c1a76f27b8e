"""Outputs that are pieces of an input, by where their elements lie: they are said, not sent.

Used on the host's one thread, during a call.
"""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from bulkhead import messages, wire
from bulkhead.memory import address_of


class Range(NamedTuple):
    """Memory in which an input lies; `address` is its first byte's, `size` in bytes."""

    of: str
    dtype: str  # of the wire
    address: int
    size: int


class Ranges:
    """Where the inputs lie, as far as the plugin has been shown any."""

    def __init__(self) -> None:
        self._shown: List[Tuple[str, str, np.ndarray]] = []
        self._ranges: Dict[int, Range] = {}  # of those, by address, once somebody wants to know

    def add(self, name: str, dtype: str, memory: np.ndarray) -> None:
        """`memory`: the input's bytes, in this mapping of them."""
        self._shown.append((name, dtype, memory))

    def find(self, dtype: str, array: np.ndarray) -> Optional[Range]:
        """The input of the same type that has all elements of `array`, or None."""
        if array.base is None or array.size == 0 or array.ndim > wire.MAX_DIMS:  # without a base: memory of its own
            return None
        if any(stride < 0 or stride % array.itemsize for stride in array.strides):
            return None
        start = address_of(array)
        end = start + array.itemsize + sum((extent - 1) * stride for extent, stride in zip(array.shape, array.strides))
        for found in self._found().values():
            if found.address <= start and end <= found.address + found.size and found.dtype == dtype:
                return None if (start - found.address) % array.itemsize else found
        return None

    def _found(self) -> Dict[int, Range]:
        for name, of_type, memory in self._shown:
            if memory.nbytes > 0:
                address = address_of(memory)
                self._ranges[address] = Range(name, of_type, address, memory.nbytes)
        self._shown.clear()
        return self._ranges


def piece(name: str, found: Range, array: np.ndarray) -> dict:
    """The wire's description of an array that Ranges.find() has found."""
    strides = [stride // array.itemsize for stride in array.strides]
    return messages.piece(name, found.of, address_of(array) - found.address, found.dtype, array.shape, strides)


def array_of(said: dict, whole: np.ndarray) -> np.ndarray:
    """What piece() has described, of the dense array that it is a piece of."""
    flat = np.frombuffer(whole.tobytes(), wire.DTYPES[said["dtype"]], offset=said["offset"])
    return as_strided(flat, said["shape"], [stride * flat.itemsize for stride in said["strides"]], writeable=False)
