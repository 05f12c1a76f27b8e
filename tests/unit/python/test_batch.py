"""Batches: inputs that cannot be damaged, outputs by writing, assigning and deleting."""

import numpy as np
import pytest

from bulkhead import Batch


def make_batch(**arrays):
    tensors = []
    for name, array in arrays.items():
        array = np.asarray(array)
        tensors.append((name, array.dtype.name, array.shape, array.tobytes()))
    return Batch(tensors)


def output(batch):
    changed, kept, payloads = batch.output()
    arrays = {}
    for tensor, payload in zip(changed, payloads):
        arrays[tensor["name"]] = (tensor["dtype"], tensor["shape"], payload.reshape(-1).tolist())
    return arrays, kept


def test_reading_keeps_the_input():
    batch = make_batch(x=np.float32([1, 2]), y=np.int64([[3]]))
    assert batch["x"].tolist() == [1, 2] and batch["y"].shape == (1, 1)
    assert list(batch) == ["x", "y"] and len(batch) == 2 and "x" in batch and "z" not in batch
    assert output(batch) == ({}, ["x", "y"])


def test_a_view_can_neither_be_written_nor_made_writable():
    batch = make_batch(x=np.float32([1, 2]))
    with pytest.raises(ValueError):
        batch["x"][0] = 5
    with pytest.raises(ValueError):
        batch["x"].flags.writeable = True


def test_mutable_is_already_the_output():
    batch = make_batch(x=np.float32([1, 2]), y=np.float32([3]))
    batch.mutable("x")[0] = 5
    batch.mutable("x")[1] += 1
    assert batch["x"].tolist() == [5, 3] and not batch["x"].flags.writeable
    assert output(batch) == ({"x": ("float32", [2], [5, 3])}, ["y"])


def test_assigning_replaces_adds_and_deleting_removes():
    batch = make_batch(x=np.float32([1, 2]), y=np.float32([3]))
    batch["x"] = np.int32([[7]])
    batch["new"] = [1, 2, 3]
    del batch["y"]
    assert "y" not in batch
    assert output(batch) == ({"x": ("int32", [1, 1], [7]), "new": ("int64", [3], [1, 2, 3])}, [])


def test_assigning_the_input_keeps_it():
    batch = make_batch(x=np.float32([1, 2]))
    view = batch["x"]
    batch.mutable("x")[0] = 9
    batch["x"] = view
    assert output(batch) == ({}, ["x"])


def test_an_assigned_array_is_not_written_to_by_mutable():
    mine = np.float32([1, 2])
    batch = make_batch(x=mine)
    batch["x"] = mine
    batch.mutable("x")[0] = 9
    assert mine.tolist() == [1, 2] and batch["x"].tolist() == [9, 2]


def test_strided_reversed_and_foreign_order_arrays_are_sent_dense():
    batch = make_batch()
    batch["t"] = np.arange(6, dtype=np.int64).reshape(2, 3).T
    batch["r"] = np.float32([1, 2, 3])[::-1]
    batch["b"] = np.array([1, 2], dtype=">i4")
    batch["s"] = np.float64(2.5)
    batch["e"] = np.empty((0, 3), dtype=np.float32)
    arrays, _ = output(batch)
    assert arrays["t"] == ("int64", [3, 2], [0, 3, 1, 4, 2, 5])
    assert arrays["r"][2] == [3, 2, 1] and arrays["b"] == ("int32", [2], [1, 2])
    assert arrays["s"] == ("float64", [], [2.5]) and arrays["e"] == ("float32", [0, 3], [])


def test_bfloat16_is_seen_as_uint16_and_stays_bfloat16():
    batch = Batch([("x", "bfloat16", (2,), b"\x80\x3f\x00\x40")])
    assert batch["x"].dtype == np.uint16 and batch.dtype("x") == "bfloat16"
    batch["x"] = batch["x"][::-1]
    assert output(batch)[0] == {"x": ("bfloat16", [2], [0x4000, 0x3F80])}


@pytest.mark.parametrize(
    "value, sentence",
    [
        (["a"], 'batch["x"] has type <U1, which is not carried; use bool, uint8, int8, int16, int32, int64, float16, '
                "bfloat16, float32 or float64"),
        (np.uint16([1]), 'batch["x"] has type uint16, which is not carried; use bool, uint8, int8, int16, int32, '
                         "int64, float16, bfloat16, float32 or float64"),
        (np.zeros([1] * 9), 'batch["x"] has 9 dimensions; at most 8 are carried'),
    ],
)  # fmt: skip
def test_what_cannot_be_carried_is_refused_with_a_sentence(value, sentence):
    batch = make_batch(x=np.float32([1]))
    with pytest.raises((TypeError, ValueError)) as caught:
        batch["x"] = value
    assert str(caught.value) == sentence


def test_a_name_that_is_not_there_says_what_is():
    batch = make_batch(x=np.float32([1]), y=np.float32([1]))
    with pytest.raises(KeyError, match='the batch has no \\\\?"z\\\\?"; it has x, y'):
        batch["z"]
    with pytest.raises(KeyError):
        batch.mutable("z")
    with pytest.raises(KeyError):
        del batch["z"]
    with pytest.raises(TypeError, match="a tensor's name must be a string"):
        batch[1] = [1]


def test_too_many_tensors_are_refused():
    batch = make_batch()
    for i in range(4097):
        batch[str(i)] = [i]
    with pytest.raises(ValueError, match="holds 4097 tensors"):
        batch.output()


def test_a_batch_that_no_message_holds_is_refused(monkeypatch):
    monkeypatch.setattr("bulkhead.wire.MAX_FRAMES", 4)
    batch = make_batch()
    for name in "abc":
        batch[name] = np.zeros(1 << 20, np.uint8)
    assert len(batch.output()[0]) == 3
    batch["d"] = np.zeros(1, np.uint8)
    with pytest.raises(ValueError, match="the batch is larger than the 3 MiB that a message can hold"):
        batch.output()


def test_it_describes_itself():
    assert repr(make_batch(x=np.zeros((2, 3), np.int64))) == "Batch(x int64[2, 3])"
