"""A batch: named tensors that a transform reads, changes, adds and removes.

The input cannot be damaged: `batch["x"]` is a read-only view; `batch.mutable("x")` already is the output, a copy, or
the input itself where the rank has given it away and nobody was shown it.  What is assigned and lies in an input, as a
slice or a permutation does, is not copied either.  A view of an input may be kept;
an output is the rank's when the hook has returned.  Nothing is sent here.  Used on the host's one thread, during the
call.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Dict, Iterator, List, Optional, Sequence, Set, Tuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from bulkhead import messages, wire
from bulkhead.memory import WORTH_SHARING, Memory, address_of
from bulkhead.pieces import Ranges, piece


class Batch(MutableMapping):
    """Mapping of name → numpy array.

    Types are numpy's own; bfloat16, which numpy lacks, is seen as uint16 with the same bits (``batch.dtype(name)``
    says "bfloat16").  Assigned may be numpy arrays, lists of numbers and torch tensors; they are copied when the hook
    returns.
    """

    def __init__(
        self, tensors: Sequence[tuple] = (), memory: Optional[Memory] = None, writable: Sequence[str] = ()
    ) -> None:
        """`tensors`: as messages.decode() gives them; outputs are put into `memory`.

        `writable`: those that may be changed where they lie.
        """
        self._memory = memory
        self._inputs = {name: (dtype, shape, data) for name, dtype, shape, data, *_ in tensors}
        self._strides = {tensor[0]: tensor[4] for tensor in tensors if len(tensor) > 4}
        self._writable = frozenset(writable)
        self._ranges = Ranges()
        self._pieces: List[dict] = []
        self._views: Dict[str, np.ndarray] = {}  # of inputs, made when asked for
        self._raw: Dict[str, np.ndarray] = {}  # inputs that torch() has given out
        self._changed: Dict[str, Tuple[str, np.ndarray]] = {}  # (wire type, output)
        self._own: Set[str] = set()  # changed ones whose array was made here, not by the plugin
        self._names: Dict[str, None] = dict.fromkeys(self._inputs)  # in order
        self._torch: Optional[Any] = None

    def __getitem__(self, name: str) -> np.ndarray:
        """A read-only view; KeyError when there is no such tensor."""
        if name in self._changed:
            view = self._changed[name][1].view()
            view.flags.writeable = False
            return view
        view = self._views.get(name)
        if view is None or name not in self._names:
            self._need(name)
            dtype, shape, data = self._inputs[name]
            flat = np.frombuffer(memoryview(data).toreadonly(), dtype=wire.DTYPES[dtype])
            self._ranges.add(name, dtype, flat)
            view = self._views[name] = self._shaped(name, flat)
        return view

    def mutable(self, name: str) -> np.ndarray:
        """A writable array, filled with the tensor as it is; it is the output, so writing to it is all."""
        if name not in self._own:
            array = self._in_place(name)
            self._changed[name] = (self.dtype(name), self._copied(self[name]) if array is None else array)
            self._own.add(name)
        return self._changed[name][1]

    def __setitem__(self, name: str, value: Any) -> None:
        """`value` becomes the tensor `name`; TypeError or ValueError when it cannot be carried."""
        if not isinstance(name, str):
            raise TypeError(f"a tensor's name must be a string, not {name!r}")
        self._own.discard(name)
        if value is not None and value is self._views.get(name):  # the input itself: kept
            self._changed.pop(name, None)
        else:
            was_bfloat16 = name in self._names and self.dtype(name) == "bfloat16"
            self._changed[name] = as_tensor(name, value, was_bfloat16)
        self._names[name] = None

    def __delitem__(self, name: str) -> None:
        self._need(name)
        self._changed.pop(name, None)
        self._own.discard(name)
        del self._names[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __repr__(self) -> str:
        parts = (f"{name} {self.dtype(name)}{list(self.shape(name))}".replace(" [", "[") for name in self)
        return f"Batch({', '.join(parts)})"

    def dtype(self, name: str) -> str:
        """The type by its name on the wire, e.g. "int64", "bfloat16"."""
        self._need(name)
        return self._changed[name][0] if name in self._changed else self._inputs[name][0]

    def shape(self, name: str) -> Tuple[int, ...]:
        self._need(name)
        return self._changed[name][1].shape if name in self._changed else self._inputs[name][1]

    def torch(self) -> Any:
        """The same batch as torch tensors (bulkhead.torch_batch.TorchBatch)."""
        if self._torch is None:
            from bulkhead.torch_batch import TorchBatch

            self._torch = TorchBatch(self)
        return self._torch

    def current_torch(self) -> Optional[Any]:
        """What torch() has given out, or None."""
        return self._torch

    def is_input(self, name: str) -> bool:
        """Whether the tensor is still the one that came in."""
        return name in self._names and name not in self._changed

    def current(self, name: str) -> np.ndarray:
        """The array as it stands, writable if it is an output: what torch() shares."""
        return self._changed[name][1] if name in self._changed else self[name]

    def put(self, name: str, dtype: str, array: np.ndarray) -> None:
        """For the host: an output as as_tensor() gave it."""
        self._changed[name] = (dtype, array)
        self._own.discard(name)
        self._names[name] = None

    def pieces(self) -> List[dict]:
        """For the host, before output(), which leaves them out: descriptors of outputs that are pieces of inputs."""
        for name, (dtype, array) in list(self._changed.items()):
            found = self._ranges.find(dtype, array)
            if found is None or name not in self._names:
                continue
            raw = self._raw.get(found.of)
            if raw is not None and address_of(raw) == found.address and self._memory.was_written(raw):
                self._changed[name] = (dtype, array.copy())  # what it shows is this process's alone
            else:
                self._pieces.append(piece(name, found, array))
        return self._pieces

    def output(self) -> Tuple[List[dict], List[str], List[Any]]:
        """For the host: (descriptors of what changed, names kept, the bytes of what changed and is to be sent)."""
        said = {piece["name"] for piece in self._pieces}
        if self._torch is not None:
            self._torch.check_inputs()
        if len(self._names) > wire.MAX_TENSORS:
            raise ValueError(f"the batch holds {len(self._names)} tensors; at most {wire.MAX_TENSORS} can be sent")
        kept, changed, payloads = [], [], []
        for name in self._names:
            if name not in self._changed:
                kept.append(name)
                continue
            if name in said:
                continue
            dtype, array = self._changed[name]
            array = np.asarray(array, dtype=wire.DTYPES[dtype])
            place = self._place(array)
            changed.append(messages.tensor(name, dtype, array.shape, place))
            if place is None:
                payloads.append(np.ascontiguousarray(array))
        if sum(-(-payload.nbytes // wire.CHUNK) for payload in payloads) >= wire.MAX_FRAMES:
            raise ValueError(f"the batch is larger than the {wire.MAX_FRAMES - 1} MiB that a message can hold")
        return changed, kept, payloads

    def raw(self, name: str) -> np.ndarray:
        """For torch(), which has no read-only tensors: the input, in memory in which a write does no harm."""
        dtype, shape, data = self._inputs[name]
        if isinstance(data, np.ndarray) and data.nbytes > 0:
            data = self._raw[name] = self._memory.writable(data)
        flat = np.frombuffer(data, dtype=wire.DTYPES[dtype])
        self._ranges.add(name, dtype, flat)
        return self._shaped(name, flat)

    def was_written(self, name: str) -> bool:
        """For torch(): whether what raw() gave was written to all the same, as far as that can be seen; it is undone."""
        data = self._raw.get(name)
        if data is None or not self._memory.was_written(data):
            return False
        self._memory.undo(data)
        return True

    def _shaped(self, name: str, flat: np.ndarray) -> np.ndarray:
        shape, strides = self._inputs[name][1], self._strides.get(name)
        if strides is None:
            return flat.reshape(shape)
        return as_strided(flat, shape, [stride * flat.itemsize for stride in strides], writeable=flat.flags.writeable)

    def _in_place(self, name: str) -> Optional[np.ndarray]:
        """The input, to be written to; None where that is not allowed or somebody looks at it as it came."""
        seen = name in self._changed or name in self._views or name in self._raw
        if name not in self._writable or name not in self._names or seen or name in self._strides:
            return None
        dtype, shape, data = self._inputs[name]
        opened = self._memory.in_place(data) if isinstance(data, np.ndarray) and data.nbytes > 0 else None
        if opened is None:
            return None
        array = opened.view(wire.DTYPES[dtype])
        self._ranges.add(name, dtype, array)
        return array.reshape(shape)

    def _copied(self, array: np.ndarray) -> np.ndarray:
        copy = self._memory.empty(array.shape, array.dtype) if self._memory is not None else None
        if copy is None:
            return np.array(array)
        np.copyto(copy, array)
        return copy

    def _place(self, array: np.ndarray) -> Optional[dict]:
        """Where the worker finds it; None: its bytes are to be sent."""
        if self._memory is None or array.nbytes < WORTH_SHARING:
            return None
        place = self._memory.name(array)
        if place is None:
            slot = self._memory.empty(array.shape, array.dtype)
            if slot is not None:
                np.copyto(slot, array)
                place = self._memory.name(slot)
        return place

    def _need(self, name: str) -> None:
        if name not in self._names:
            there = ", ".join(self._names) or "nothing"
            raise KeyError(f'the batch has no "{name}"; it has {there}')


def as_tensor(name: str, value: Any, bfloat16: bool, where: str = "") -> Tuple[str, np.ndarray]:
    """(wire type, array) of what a plugin gave; `bfloat16`: uint16 means that.  Copies only where it must.

    TypeError or ValueError for what is not carried; the sentence begins with `where`, else with the batch's tensor.
    """
    what = f'{where}"{name}"' if where else f'batch["{name}"]'
    if type(value).__module__.split(".")[0] == "torch":
        from bulkhead.torch_batch import to_numpy

        found, array = to_numpy(what, value)
    else:
        array = np.asarray(value)
        found = wire.name_of(array.dtype)
        if found == "bfloat16":
            array = array.view(np.uint16)
        elif bfloat16 and array.dtype == np.uint16:
            found = "bfloat16"
    if not found:
        raise TypeError(f"{what} has type {array.dtype}, which is not carried; use {_listing()}")
    if array.ndim > wire.MAX_DIMS:
        raise ValueError(f"{what} has {array.ndim} dimensions; at most {wire.MAX_DIMS} are carried")
    return found, array


def _listing() -> str:
    names = list(wire.DTYPES)
    return f"{', '.join(names[:-1])} or {names[-1]}"
