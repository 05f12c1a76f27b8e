"""How a state carries arrays, tensors and their generators (bulkhead/state.py).

torch is imported only to bring back what a plugin that had imported it put there.  Pure functions.
"""

from __future__ import annotations

import sys
from typing import Any, Callable, Dict, Optional, Tuple

import numpy as np

_KINDS_OF_NUMBER = "biufcSUmM"  # no objects, no records
_SCALAR, _TENSOR, _TORCH_GENERATOR = 24, 25, 26


def _check(dtype: np.dtype) -> str:
    if dtype.kind not in _KINDS_OF_NUMBER:
        from bulkhead.state import NotCarried

        raise NotCarried(f"a numpy array of type {dtype}")
    return dtype.str


def _array(value: np.ndarray) -> list:
    return [_check(value.dtype), list(value.shape), value.tobytes()]


def _array_back(plain: list) -> np.ndarray:
    dtype, shape, data = plain
    return np.frombuffer(data, dtype=dtype).reshape(shape).copy()


def _generator_back(state: dict) -> np.random.Generator:
    name = state["bit_generator"]
    if name not in ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"):
        raise ValueError(f"{name} is not a bit generator")
    bits = getattr(np.random, name)()
    bits.state = state
    return np.random.Generator(bits)


def _random_state_back(state: dict) -> np.random.RandomState:
    generator = np.random.RandomState(_generator_back(state).bit_generator)
    generator.set_state(state)
    return generator


NUMPY_KINDS: Dict[type, Tuple[int, Callable[[Any], Any], Callable[[Any], Any]]] = {
    np.ndarray: (21, _array, _array_back),
    np.random.Generator: (22, lambda v: v.bit_generator.state, _generator_back),
    np.random.RandomState: (23, lambda v: v.get_state(legacy=False), _random_state_back),
}


def kind_of(value: Any) -> Optional[Tuple[int, Callable[[Any], Any]]]:
    """(code, value → simpler value) for numpy scalars and what torch has; None for anything else."""
    if isinstance(value, np.generic) and value.dtype.kind in _KINDS_OF_NUMBER:
        return _SCALAR, lambda v: [v.dtype.str, v.tobytes()]
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "Tensor"):
        return None
    if type(value) is torch.Tensor and value.layout is torch.strided and not value.is_quantized:
        return _TENSOR, _tensor
    if type(value) is torch.Generator and value.device.type == "cpu":
        return _TORCH_GENERATOR, lambda v: v.get_state().numpy().tobytes()
    return None


def _tensor(value: Any) -> list:
    torch = sys.modules["torch"]
    dense = value.detach().cpu().contiguous().resolve_conj().resolve_neg()
    data = dense.reshape(-1).view(torch.uint8).numpy().tobytes()
    return [str(value.dtype).split(".")[-1], list(value.shape), data, str(value.device), value.requires_grad]


def _tensor_back(plain: list) -> Any:
    import torch

    dtype, shape, data, device, requires_grad = plain
    kind = getattr(torch, dtype)
    if not isinstance(kind, torch.dtype):
        raise ValueError(f"{dtype} is not a tensor type")
    flat = torch.frombuffer(bytearray(data), dtype=kind) if data else torch.empty(0, dtype=kind)
    return flat.reshape(shape).to(device).requires_grad_(requires_grad)


def _torch_generator_back(data: bytes) -> Any:
    import torch

    generator = torch.Generator()
    generator.set_state(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    return generator


OTHER_BACK: Dict[int, Callable[[Any], Any]] = {
    _SCALAR: lambda plain: np.frombuffer(plain[1], dtype=plain[0])[0],
    _TENSOR: _tensor_back,
    _TORCH_GENERATOR: _torch_generator_back,
}
