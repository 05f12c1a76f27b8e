"""Dead letters: a batch that a plugin could not take, and the call that it came with.

RUN/dead_letters/NAME.json names the plugin and the call, NAME.safetensors beside it holds the batch (worker/dead_letter.h).
Pure functions but for read().
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass
from typing import Any, Dict

import numpy as np

from bulkhead import messages, wire
from bulkhead.batch import Batch
from bulkhead.hooks import HOOKS, did_you_mean

_LENGTH = struct.Struct("<Q")
_MOST_HEADER = 100 << 20
_TYPES = {"BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64",
          "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}  # fmt: skip
_PLUGIN = {"use": str, "name": str, "with": dict, "language": str, "file": str, "module": str, "class_name": str,
           "scope": str, "python": str}  # fmt: skip


class BadLetter(Exception):
    """The file is none, or a damaged one; one sentence."""


@dataclass(frozen=True)
class Letter:
    """What the plugin was asked, and why it is kept."""

    config: dict  # the plugin's, as `load` carries it; `python` is its interpreter
    facts: dict  # of the process
    hook: str
    context: dict
    seed_rank: int
    reason: str
    batch: Batch


def read(path: str) -> Letter:
    """`path`: either of the two files."""
    stem, ending = os.path.splitext(path)
    if ending not in (".json", ".safetensors"):
        hint = did_you_mean(ending, [".json", ".safetensors"])
        raise BadLetter(f"{path} is no dead letter: its name does not end with .json or .safetensors{hint}")
    try:
        with open(stem + ".json", encoding="utf-8") as file:
            said = json.load(file)
        with open(stem + ".safetensors", "rb") as file:
            batch = tensors_of(file.read(), stem + ".safetensors")
    except OSError as error:
        raise BadLetter(f"{error.filename}: {error.strerror}") from None
    except ValueError as error:
        raise BadLetter(f"{stem}.json is not JSON: {error}") from None
    return _letter(said, batch, stem + ".json")


def _letter(said: Any, batch: Batch, where: str) -> Letter:
    def need(table: Any, key: str, kind: type, inside: str = "") -> Any:
        found = table.get(key) if isinstance(table, dict) else None
        if type(found) is not kind:
            raise BadLetter(f'{where} is no dead letter of this version: it has no "{inside}{key}"')
        return found

    config = need(said, "config", dict)
    for key, kind in _PLUGIN.items():
        need(config, key, kind, "config.")
    hook = need(said, "hook", str)
    if hook not in HOOKS:
        raise BadLetter(f'{where}: there is no hook "{hook}"{did_you_mean(hook, HOOKS)}')
    known = messages.default_context()
    context = {key: value for key, value in need(said, "context", dict).items() if key in known}
    facts = messages.default_facts()
    facts.update({key: value for key, value in need(said, "facts", dict).items() if key in facts})
    return Letter({**config, "spin_us": 0}, facts, hook, {**known, **context}, need(said, "seed_rank", int),
                  need(said, "reason", str), batch)  # fmt: skip


def tensors_of(data: bytes, where: str) -> Batch:
    """Of a file in safetensors' format: u64 length of a JSON header, the header, the tensors' bytes."""
    try:
        (length,) = _LENGTH.unpack_from(data)
        if length > min(_MOST_HEADER, len(data) - _LENGTH.size):
            raise ValueError("its header is longer than the file")
        header: Dict[str, Any] = json.loads(data[_LENGTH.size : _LENGTH.size + length])
        body = memoryview(data)[_LENGTH.size + length :]
        tensors = []
        for name, about in header.items():
            if name == "__metadata__":
                continue
            dtype, (begin, end) = _TYPES[about["dtype"]], about["data_offsets"]
            if not 0 <= begin <= end <= len(body) or wire.tensor_size(dtype, about["shape"]) != end - begin:
                raise ValueError(f'"{name}" does not fit its bytes')
            tensors.append((begin, name, dtype, np.frombuffer(body[begin:end], wire.DTYPES[dtype]).reshape(about["shape"])))
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, wire.Malformed) as error:
        raise BadLetter(f"{where} is not a safetensors file: {error}") from None
    batch = Batch()
    for _, name, dtype, array in sorted(tensors, key=lambda tensor: tensor[0]):
        batch.put(name, dtype, array)
    return batch
