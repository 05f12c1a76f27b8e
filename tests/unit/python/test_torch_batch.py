"""Batches as torch tensors."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from bulkhead import Batch, wire  # noqa: E402


def make_batch():
    return Batch([("x", "float32", (2,), np.float32([1, 2]).tobytes()), ("h", "bfloat16", (1,), b"\x80\x3f")])


def test_inputs_are_shared_without_a_copy():
    batch = make_batch()
    assert batch.torch()["x"].data_ptr() == batch["x"].ctypes.data
    assert batch.torch()["h"].dtype == torch.bfloat16 and batch.torch()["h"].item() == 1.0
    assert batch.output() == ([], ["x", "h"], [])


def test_a_write_in_place_into_an_input_is_an_error_not_a_silent_loss():
    batch = make_batch()
    batch.torch()["x"].add_(1)
    with pytest.raises(RuntimeError, match=r'was changed in place, but it is read-only; use batch.torch\(\).mutable'):
        batch.output()


def test_mutable_is_already_the_output():
    batch = make_batch()
    batch.torch().mutable("x").add_(1)
    batch.torch()["x"].mul_(2)  # by now the output
    batch.torch().mutable("h").fill_(2)
    changed, kept, payloads = batch.output()
    assert payloads[0].tolist() == [4, 6] and payloads[1].tolist() == [0x4000]
    assert [tensor["dtype"] for tensor in changed] == ["float32", "bfloat16"] and kept == []


def test_tensors_can_be_assigned_either_way():
    batch = make_batch()
    batch["x"] = torch.ones(2, 2, requires_grad=True).T
    batch.torch()["h"] = torch.tensor([3.0], dtype=torch.bfloat16)
    batch["n"] = torch.nn.Parameter(torch.tensor(1.5))
    changed, _, payloads = batch.output()
    assert [(tensor["name"], tensor["dtype"], tensor["shape"]) for tensor in changed] == [
        ("x", "float32", [2, 2]), ("h", "bfloat16", [1]), ("n", "float32", [])]  # fmt: skip
    assert payloads[1].tolist() == [0x4040]
    with pytest.raises(TypeError, match="complex64, which is not carried"):
        batch["c"] = torch.ones(1, dtype=torch.complex64)


def test_assigning_the_input_keeps_it():
    batch = make_batch()
    batch.torch()["x"] = batch.torch()["x"]
    assert batch.output()[1] == ["x", "h"]


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (5,), (2, 1, 2, 1, 2, 1, 2, 3)])
@pytest.mark.parametrize("dtype", wire.DTYPES)
def test_every_type_in_every_shape(dtype, shape):
    count, itemsize = int(np.prod(shape)), wire.DTYPES[dtype].itemsize
    data = (np.arange(count * itemsize) % 2).astype(np.uint8).tobytes()
    batch = Batch([("x", dtype, shape, data)])
    given = batch.torch()["x"]
    assert tuple(given.shape) == shape and str(given.dtype) == f"torch.{dtype}"
    back = tuple(reversed(range(len(shape))))
    batch["turned"] = given.permute(back).contiguous().permute(back)
    batch["gaps"] = torch.stack([given, given], -1)[..., 1]
    batch.torch().mutable("x")
    changed, kept, payloads = batch.output()
    assert [(tensor["dtype"], tuple(tensor["shape"])) for tensor in changed] == [(dtype, shape)] * 3 and kept == []
    assert [payload.tobytes() for payload in payloads] == [data] * 3


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2"])
def test_what_is_no_type_of_a_tensor_is_refused_with_a_sentence(dtype):
    if not hasattr(torch, dtype):
        pytest.skip(f"torch {torch.__version__} has no {dtype}")
    batch = make_batch()
    with pytest.raises(TypeError, match=rf'batch\["c"\] has type torch.{dtype}, which is not carried'):
        batch["c"] = torch.zeros(3, dtype=getattr(torch, dtype))
