"""Philox4x64-10 and the seeds of calls, equal to protocol/rng.h bit for bit.

numpy's Philox is the same generator, so nothing is implemented here: keys are derived, and global generators get
their seed before a call.
"""

from __future__ import annotations

import hashlib
import random
import struct
import sys
from typing import Tuple

import msgpack
import numpy as np

Key = Tuple[int, int]
_KEY = struct.Struct("<QQ")


def call_key(run_seed: int, plugin: str, rank: int, hook: str, step: int, micro_batch: int) -> Key:
    """First 16 bytes, little endian, of the sha256 of the msgpack array of the six."""
    packed = msgpack.packb([run_seed, plugin, rank, hook, step, micro_batch])
    return _key_of(packed)


def sample_key(run_seed: int, plugin: str, hook: str, epoch: int, sample: int) -> Key:
    """The same of the five: one sample of a sample hook.  Neither rank nor step is among them."""
    return _key_of(msgpack.packb([run_seed, plugin, hook, epoch, sample]))


def _key_of(packed: bytes) -> Key:
    return _KEY.unpack_from(hashlib.sha256(packed).digest())


class Rng(np.random.Generator):
    """A numpy Generator over Philox; `next_u64`, `uniform()` and `below` draw what the C++ `ctx.rng` draws."""

    @classmethod
    def of_key(cls, key: Key) -> Rng:
        return cls(np.random.Philox(key=np.array(key, dtype=np.uint64)))

    def next_u64(self) -> int:
        """The next raw 64-bit output; ``uniform()`` is ``(next_u64() >> 11) * 2**-53``."""
        return int(self.bit_generator.random_raw())

    def below(self, bound: int) -> int:
        """Uniform in [0, bound) without bias, by rejection, from raw outputs.  bound ≥ 1."""
        if not 1 <= bound < 2**64:
            raise ValueError(f"rng.below: {bound} is not between 1 and 2**64 - 1")
        limit = (2**64 - 1) - (2**64 - 1) % bound
        while True:
            draw = self.next_u64()
            if draw < limit:
                return draw % bound


class GlobalSeeds:
    """Seeds `random`, numpy's global generator and torch's, where torch was imported.

    numpy's global generator is replaced once, by a Philox whose state costs 3 µs to set.
    """

    def __init__(self) -> None:
        generator = np.random.Philox(key=np.zeros(2, dtype=np.uint64))
        np.random.set_bit_generator(generator)
        self._state = generator.state
        self._key = self._state["state"]["key"]

    def seed(self, key: Key) -> None:
        random.seed(key[0])
        self._key[0], self._key[1] = key
        np.random.set_state(self._state)
        torch = sys.modules.get("torch")
        if torch is not None:
            _seed_torch(torch, key[0])


def _seed_torch(torch, word: int) -> None:
    # A generator that half an import has not made yet is seeded before the next call.
    default = getattr(torch, "default_generator", None)
    if default is None:
        return
    default.manual_seed(word)
    cuda = getattr(torch, "cuda", None)
    if cuda is not None and cuda.is_initialized():
        for generator in cuda.default_generators:
            generator.manual_seed(word)
