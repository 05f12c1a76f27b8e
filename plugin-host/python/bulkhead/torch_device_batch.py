"""A batch on the rank's GPU, for plugins with ``device: cuda``: named torch tensors, read, changed, added, removed.

The rank has given its input away as a copy, so a tensor is changed where it lies.  The rules are those of `Batch`:
`batch["x"]` is to be read only, `batch.mutable("x")` already is the output.  An output that lies in the call's region,
changed in place, a slice or a permutation of an input, is not copied here.  Where the host shares no memory of the GPU
the same tensors are made by a copy from host memory.  Used on the host's one thread, during the call.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Dict, Iterator, List, Optional, Set, Tuple

import torch

from bulkhead import messages, wire
from bulkhead.batch import Batch
from bulkhead.device import Region
from bulkhead.memory import Memory


class DeviceBatch(MutableMapping):
    """Mapping of name → torch tensor on `device`."""

    def __init__(self, device: Any, region: Optional[Region], host: Batch, memory: Optional[Memory] = None) -> None:
        """`host`: inputs that are in no region; `memory`: for outputs for which it has no room."""
        self._device, self._region, self._host, self._memory = device, region, host, memory
        inputs = [*(region.tensors if region is not None else ()), *host]
        self._names: Dict[str, None] = dict.fromkeys(inputs)  # in order
        self._inputs: Set[str] = set(inputs)
        self._handed: Dict[str, Tuple[torch.Tensor, int]] = {}  # inputs given out, with their version then
        self._changed: Dict[str, torch.Tensor] = {}
        self._own: Set[str] = set()  # changed ones that mutable() has made

    def __getitem__(self, name: str) -> torch.Tensor:
        """The tensor: an input to be read only, or the output as it stands.  KeyError when there is no such tensor."""
        self._need(name)
        if name in self._changed:
            return self._changed[name]
        if name not in self._handed:
            tensor = self._input(name)
            self._handed[name] = (tensor, tensor._version)
        return self._handed[name][0]

    def mutable(self, name: str) -> torch.Tensor:
        """A writable tensor, filled with the tensor as it is; it is the output, so writing to it is all."""
        if name not in self._own:
            seen = name in self._changed or name in self._handed
            self._need(name)
            self._changed[name] = self[name].clone() if seen else self._input(name)
            self._own.add(name)
        return self._changed[name]

    def __setitem__(self, name: str, value: Any) -> None:
        """`value` becomes the tensor `name`: a tensor of any device, an array, numbers.  TypeError or ValueError."""
        if not isinstance(name, str):
            raise TypeError(f"a tensor's name must be a string, not {name!r}")
        handed = self._handed.get(name)
        self._own.discard(name)
        if handed is not None and value is handed[0] and name in self._inputs:
            self._changed.pop(name, None)  # the input itself: kept
        else:
            self._changed[name] = _carried(name, torch.as_tensor(value, device=self._device))
        self._names[name] = None

    def __delitem__(self, name: str) -> None:
        self._need(name)
        self._changed.pop(name, None)
        self._own.discard(name)
        self._inputs.discard(name)
        del self._names[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __repr__(self) -> str:
        parts = (f"{name} {self.dtype(name)}{list(self.shape(name))}" for name in self)
        return f"DeviceBatch({', '.join(parts)})"

    def dtype(self, name: str) -> str:
        """The type by its name on the wire, e.g. "int64", "bfloat16"."""
        return str(self[name].dtype).split(".")[-1]

    def shape(self, name: str) -> Tuple[int, ...]:
        return tuple(self[name].shape)

    def torch(self) -> DeviceBatch:
        """This batch: a plugin that says ``batch.torch()`` runs on both devices."""
        return self

    def current_torch(self) -> DeviceBatch:
        return self

    def finish(self) -> Tuple[List[dict], List[str], List[dict], List[Any]]:
        """For the host: (what changed and lies elsewhere, names kept, what lies in the region, bytes to be sent).

        Copies are queued, not waited for.  RuntimeError when an input that is kept was written to.
        """
        for name, (tensor, version) in self._handed.items():
            if tensor._version != version and name in self._inputs and name not in self._changed:
                raise RuntimeError(
                    f'batch["{name}"] was changed in place, but it is read-only; use batch.mutable("{name}")'
                )
        if len(self._names) > wire.MAX_TENSORS:
            raise ValueError(f"the batch holds {len(self._names)} tensors; at most {wire.MAX_TENSORS} can be sent")
        kept, in_region = [], []
        out = Batch((), self._memory)
        for name in self._names:
            if name not in self._changed:
                kept.append(name)
                continue
            said = self._in_region(name, self._changed[name])
            if said is None:
                out[name] = self._changed[name]
            else:
                in_region.append(said)
        changed, _, payloads = out.output()
        return changed, kept, in_region, payloads

    def _in_region(self, name: str, tensor: torch.Tensor) -> Optional[dict]:
        if self._region is None:
            return None
        offset = self._region.offset_of(tensor)
        dtype = str(tensor.dtype).split(".")[-1]
        if offset is None:
            room = self._region.room(dtype, tuple(tensor.shape))
            if room is None:
                return None
            tensor = room.copy_(tensor)
            offset = self._region.offset_of(tensor) or 0
        return messages.piece(name, "", offset, dtype, tensor.shape, tensor.stride())

    def _input(self, name: str) -> torch.Tensor:
        if self._region is not None and name in self._region.tensors:
            return self._region.tensor(name)
        return self._host.torch()[name].to(self._device, copy=True)

    def _need(self, name: str) -> None:
        if name not in self._names:
            there = ", ".join(self._names) or "nothing"
            raise KeyError(f'the batch has no "{name}"; it has {there}')


def _carried(name: str, tensor: torch.Tensor) -> torch.Tensor:
    if str(tensor.dtype).split(".")[-1] not in wire.DTYPES:
        raise TypeError(f'batch["{name}"] has type {tensor.dtype}, which is not carried')
    if tensor.dim() > wire.MAX_DIMS:
        raise ValueError(f'batch["{name}"] has {tensor.dim()} dimensions; at most {wire.MAX_DIMS} are carried')
    return tensor.detach().resolve_neg()
