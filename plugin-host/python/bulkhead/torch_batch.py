"""A batch as torch tensors, for plugins that import torch: the only file that knows torch tensors of batches.

Inputs are shared, not copied.  torch has no read-only tensors, so a write in place into an input is found out when
the hook returns and is an error; the rank's own input is not touched either way.
"""

from __future__ import annotations

import warnings
from collections.abc import MutableMapping
from typing import Any, Dict, Iterator, Tuple

import numpy as np
import torch

from bulkhead import wire


class TorchBatch(MutableMapping):
    """``batch.torch()``: name → torch tensor on the CPU; writes go to the batch it belongs to."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch
        self._handed: Dict[str, Tuple[torch.Tensor, int]] = {}  # inputs given out, with their version then

    def __getitem__(self, name: str) -> torch.Tensor:
        """The tensor: an input to be read only, or the output as it stands."""
        if not self._batch.is_input(name):
            return _from_numpy(self._batch.current(name), self._batch.dtype(name))
        if name not in self._handed:
            tensor = _from_numpy(self._batch.raw(name), self._batch.dtype(name))
            self._handed[name] = (tensor, tensor._version)
        return self._handed[name][0]

    def mutable(self, name: str) -> torch.Tensor:
        """A writable tensor that already is the output."""
        return _from_numpy(self._batch.mutable(name), self._batch.dtype(name))

    def __setitem__(self, name: str, value: Any) -> None:
        handed = self._handed.get(name)
        if handed is not None and value is handed[0] and self._batch.is_input(name):
            return
        self._batch[name] = value

    def __delitem__(self, name: str) -> None:
        del self._batch[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._batch)

    def __len__(self) -> int:
        return len(self._batch)

    def check_inputs(self) -> None:
        """For the host: RuntimeError when an input that is kept was written to."""
        for name, (tensor, version) in self._handed.items():
            changed = self._batch.was_written(name) or tensor._version != version
            if changed and self._batch.is_input(name):
                raise RuntimeError(
                    f'batch.torch()["{name}"] was changed in place, but it is read-only; '
                    f'use batch.torch().mutable("{name}")'
                )


def to_numpy(what: str, value: Any) -> Tuple[str, np.ndarray]:
    """(wire type, array) of a torch tensor on any device; shares memory where it is a dense one on the CPU.

    TypeError for another type; its sentence begins with `what`.
    """
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{what} is {wire.a(type(value))}, not a tensor")
    dtype = str(value.dtype).split(".")[-1]
    if dtype not in wire.DTYPES:
        raise TypeError(f"{what} has type {value.dtype}, which is not carried")
    value = value.detach().cpu().resolve_conj().resolve_neg()
    if dtype == "bfloat16":
        return dtype, value.contiguous().view(torch.int16).numpy().view(np.uint16)
    return dtype, value.numpy()


def _from_numpy(array: np.ndarray, dtype: str) -> torch.Tensor:
    if dtype == "bfloat16":
        array = array.view(np.int16)
    with warnings.catch_warnings():
        # torch warns, once a process, that it cannot keep the view read-only: check_inputs() does.
        warnings.filterwarnings("ignore", message=".*not writable.*")
        tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor
