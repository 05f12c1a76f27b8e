"""Batches as torch tensors."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from bulkhead import Batch  # noqa: E402


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
