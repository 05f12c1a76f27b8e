"""The rank's GPU in this host: its memory by CUDA IPC, what was queued to it, whether it still works.

Only for a plugin with ``device: cuda`` in the run file.  The driver is called by ctypes; torch, which the plugin's
environment must have with CUDA, makes the tensors.  Both use the GPU's primary context.  Used on the host's one thread.
"""

from __future__ import annotations

import ctypes
import time
import weakref
from typing import Any, Callable, Dict, List, Optional, Tuple

from bulkhead import wire
from bulkhead.memory import Key
from bulkhead.wire import Malformed

_HANDLE_BYTES = 64
_LAZY_PEER_ACCESS = 1
_ALIGNMENT = 256
_NOT_READY = 600
_PATIENCE_SECONDS = 20.0

View = Callable[[int, int, Any], Any]  # (address, bytes, what keeps them) → uint8 tensor


class NoGpu(Exception):
    """Why the GPU cannot be used; one sentence."""


class GpuLost(Exception):
    """The GPU no longer works for this process, which must end; one sentence."""


class _Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_ubyte * _HANDLE_BYTES)]


class _Memory:
    """Memory of the GPU for torch, which keeps this for as long as it has a tensor there."""

    def __init__(self, address: int, size: int, lease: Any) -> None:
        self.lease = lease
        self.__cuda_array_interface__ = {
            "shape": (size,), "typestr": "|u1", "data": (address, False), "version": 3, "strides": None,
        }  # fmt: skip


class _Lease:
    """Somebody looks at a region."""


class _Block:
    """A block of the worker's, opened here."""

    def __init__(self, address: int, size: int, ready: ctypes.c_void_p) -> None:
        self.address, self.size, self.ready = address, size, ready
        self.lease: Optional[weakref.ref] = None

    def is_looked_at(self) -> bool:
        return self.lease is not None and self.lease() is not None


class Region:
    """What a call was lent: its inputs, and room for new tensors."""

    def __init__(self, block: _Block, tensors: List[dict], view: View) -> None:
        """Malformed when a tensor does not lie in it."""
        self._block, self._view, self._lease = block, view, _Lease()
        block.lease = weakref.ref(self._lease)
        self.tensors: Dict[str, dict] = {}
        self._used = 0
        for tensor in tensors:
            wire.tensor_size(tensor["dtype"], tensor["shape"])
            span = wire.span(tensor["dtype"], tensor["shape"], tensor["strides"])
            if tensor["offset"] < 0 or span > block.size - tensor["offset"]:
                raise Malformed(f'region "{tensor["name"][:64]}" lies beyond its end')
            if tensor["offset"] % wire.DTYPES[tensor["dtype"]].itemsize:
                raise Malformed(f'region "{tensor["name"][:64]}" is not aligned')
            self.tensors[tensor["name"]] = tensor
            self._used = max(self._used, tensor["offset"] + span)

    def tensor(self, name: str) -> Any:
        """An input, as a tensor of its own: its version counts the writes to it alone."""
        said = self.tensors[name]
        span = wire.span(said["dtype"], said["shape"], said["strides"])
        return self._typed(said["offset"], span, said["dtype"], said["shape"], said["strides"])

    def room(self, dtype: str, shape: Tuple[int, ...]) -> Optional[Any]:
        """A dense tensor behind the inputs, with whatever is there; None where it does not fit."""
        offset = -(-self._used // _ALIGNMENT) * _ALIGNMENT
        span = wire.tensor_size(dtype, list(shape))
        if span > self._block.size - offset:
            return None
        self._used = offset + span
        strides = [1] * len(shape)
        for i in range(len(shape) - 2, -1, -1):
            strides[i] = strides[i + 1] * shape[i + 1]
        return self._typed(offset, span, dtype, shape, strides)

    def offset_of(self, tensor: Any) -> Optional[int]:
        """Where a tensor that lies in the region begins; None for any other."""
        if tensor.numel() == 0:
            return None
        last = sum((extent - 1) * stride for extent, stride in zip(tensor.shape, tensor.stride()))
        offset = tensor.data_ptr() - self._block.address
        inside = 0 <= offset and offset + (last + 1) * tensor.element_size() <= self._block.size
        return offset if inside and offset % tensor.element_size() == 0 else None

    def _typed(self, offset: int, span: int, dtype: str, shape: Any, strides: Any) -> Any:
        import torch

        flat = self._view(self._block.address + offset, span, self._lease)
        return flat.view(getattr(torch, dtype)).as_strided(tuple(shape), tuple(strides))


class Gpu:
    """One GPU, from the host's beginning to its end."""

    def __init__(self, ordinal: int, library: str = "libcuda.so.1", view: Optional[View] = None) -> None:
        """`view`: for tests, whose `library` has memory that torch takes for the CPU's.  NoGpu."""
        self.device = f"cuda:{ordinal}"
        self._view = view or self._view_by_torch
        if view is None:
            self._open_torch()
        try:
            self._driver = ctypes.CDLL(library)
        except OSError as error:
            raise NoGpu(f"there is no CUDA driver here: {error}") from None
        device, context, uuid = ctypes.c_int(), ctypes.c_void_p(), (ctypes.c_ubyte * 16)()
        for name, *arguments in (
            ("cuInit", ctypes.c_uint(0)),
            ("cuDeviceGet", ctypes.byref(device), ctypes.c_int(ordinal)),
            ("cuDeviceGetUuid_v2", ctypes.byref(uuid), device),
            ("cuDevicePrimaryCtxRetain", ctypes.byref(context), device),
            ("cuCtxSetCurrent", context),
        ):
            if error := getattr(self._driver, name)(*arguments):
                raise NoGpu(f"GPU {ordinal} cannot be used: {name} gave {error}")
        self.capability = f"cuda:{bytes(uuid).hex()}"
        self._blocks: Dict[int, _Block] = {}
        self._lent: Optional[Tuple[int, _Block]] = None  # to the call that runs
        self._unused: List[Key] = []

    def open(self, said: dict) -> Region:
        """The region that a call's `region` describes, when its input is there.  Malformed; GpuLost."""
        number = said["segment"]
        block = self._blocks.get(number)
        if block is None:
            address, ready = ctypes.c_uint64(), ctypes.c_void_p()
            memory, event = _handle(said["memory"]), _handle(said["ready"])
            flags = ctypes.c_uint(_LAZY_PEER_ACCESS)
            self._check("cuIpcOpenMemHandle_v2", ctypes.byref(address), memory, flags)
            self._check("cuIpcOpenEventHandle", ctypes.byref(ready), event)
            block = self._blocks[number] = _Block(address.value, said["bytes"], ready)
        self._wait(block.ready)
        self._lent = (number, block)
        return Region(block, said["tensors"], self._view)

    def finish(self) -> None:
        """When all that was queued here has been done.  GpuLost where it went wrong."""
        self._check("cuCtxSynchronize")

    def check(self, error: BaseException) -> None:
        """After an exception: GpuLost where this process cannot go on, or must not.

        What is left of an illegal access is an error in every later call.  Who has run out of the GPU's memory is in
        the rank's way for as long as it holds what it has.
        """
        if type(error).__name__ == "OutOfMemoryError":
            raise GpuLost(f"the GPU has no more memory: {error}") from error
        if code := self._driver.cuCtxSynchronize():
            raise GpuLost(f"the GPU stopped with error {code}: {error}") from error

    def held(self) -> List[Key]:
        """The region of this call, where somebody still looks at it."""
        lent, self._lent = self._lent, None
        if lent is None or not lent[1].is_looked_at():
            return []
        key = (lent[0], 0)
        weakref.finalize(lent[1].lease(), self._unused.append, key).atexit = False
        return [key]

    def take_unused(self) -> List[Key]:
        """Of what was held, what is looked at no more."""
        unused, self._unused[:] = list(self._unused), []
        return unused

    def forget(self) -> None:
        """The worker has gone.  What plugins still look at stays open."""
        for block in self._blocks.values():
            if not block.is_looked_at():
                self._driver.cuIpcCloseMemHandle(ctypes.c_uint64(block.address))
        self._blocks, self._lent = {}, None
        self._unused = []  # what goes from now on was that worker's

    def _wait(self, event: ctypes.c_void_p) -> None:
        """For the rank's copies; not for ever, as it may have died before they came."""
        begun = time.monotonic()
        while (code := self._driver.cuEventQuery(event)) == _NOT_READY:
            waited = time.monotonic() - begun
            if waited > _PATIENCE_SECONDS:
                raise GpuLost("a copy of the rank's has not come")
            if waited > 0.001:  # copies take microseconds; what takes longer waits behind other work
                time.sleep(0.0001)
        if code:
            raise GpuLost(f"the GPU stopped with error {code} in cuEventQuery")

    def _check(self, name: str, *arguments: Any) -> None:
        if code := getattr(self._driver, name)(*arguments):
            text = ctypes.c_char_p()
            self._driver.cuGetErrorString(code, ctypes.byref(text))
            why = text.value.decode(errors="replace") if text.value else "unknown"
            raise GpuLost(f"the GPU stopped with error {code} ({why}) in {name}")

    def _open_torch(self) -> None:
        try:
            import torch
        except ImportError as error:
            raise NoGpu(f"the plugin's Python has no torch: {error}") from None
        if not torch.cuda.is_available():
            raise NoGpu(f"torch {torch.__version__} of the plugin's Python finds no GPU")
        torch.cuda.set_device(self.device)
        torch.zeros(1, device=self.device)  # the context is there

    def _view_by_torch(self, address: int, size: int, lease: Any) -> Any:
        import torch

        if size == 0:
            return torch.empty(0, dtype=torch.uint8, device=self.device)
        return torch.as_tensor(_Memory(address, size, lease), device=self.device)


def open_gpu(device: str) -> Gpu:
    """The rank's, by the name that the facts give it.  NoGpu."""
    if not device.startswith("cuda:"):
        raise NoGpu(f"the rank is on {device}")
    return Gpu(int(device[len("cuda:") :]))


def _handle(text: str) -> _Handle:
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    if len(data) != _HANDLE_BYTES:
        raise Malformed("region has a handle that is not 128 hexadecimal digits")
    return _Handle.from_buffer_copy(data)
