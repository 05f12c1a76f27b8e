"""A text whose characters are the tokens of a learnable synthetic language: 7 of 10 tokens follow from the one before.

One code point a token, so that every reader of text has the same vocabulary of any size without a tokenizer's files.
"""

from __future__ import annotations

from pathlib import Path

import numpy

FIRST_CODE_POINT = 0x100  # of token 0; the tokens' code points are consecutive, below the surrogates
COMMON = 2000  # tokens that make up most of the text
STEPS = 60  # of training that the text lasts for, before it begins again


def make(path: Path, vocabulary: int, tokens_per_step: int) -> Path:
    """Writes the text; every token occurs in it."""
    assert FIRST_CODE_POINT + vocabulary < 0xD800
    random = numpy.random.default_rng(0)
    rows, length = 256, STEPS * tokens_per_step // 256
    text = numpy.empty((rows, length), dtype=numpy.int64)
    text[:, 0] = random.integers(0, COMMON, rows)
    for at in range(1, length):
        rare = random.integers(0, COMMON, rows) * random.integers(0, 25, rows) % vocabulary
        text[:, at] = numpy.where(random.random(rows) < 0.7, (text[:, at - 1] * 5 + 17) % COMMON, rare)
    all_tokens = random.permutation(numpy.tile(numpy.arange(vocabulary), 1 + STEPS * tokens_per_step // 9 // vocabulary))
    points = numpy.concatenate([text.ravel(), all_tokens]) + FIRST_CODE_POINT
    path.write_bytes(points.astype("<u4").tobytes().decode("utf-32-le").encode("utf-8"))
    return path


def read(path: Path) -> numpy.ndarray:
    """Its tokens, int64."""
    text = path.read_text(encoding="utf-8").encode("utf-32-le")
    return numpy.frombuffer(text, dtype="<u4").astype(numpy.int64) - FIRST_CODE_POINT
