"""The rank's GPU as a host sees it, over a stand-in for the driver (support/cuda_stand_in.cpp): regions, batches, loss.

The stand-in's memory is the CPU's, so torch's tensors are the CPU's as well; tests/gpu has the real driver.
"""

import ctypes
import gc
import os
import pathlib

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from bulkhead import Batch  # noqa: E402
from bulkhead.device import Gpu, GpuLost, NoGpu, open_gpu  # noqa: E402
from bulkhead.torch_device_batch import DeviceBatch  # noqa: E402
from bulkhead.wire import Malformed  # noqa: E402
from conftest import ROOT  # noqa: E402

MIB = 1 << 20


def stand_in():
    own = pathlib.Path(os.environ.get("BULKHEAD_BUILD_DIR", "")) / "tests" / "libcuda_stand_in.so"
    built = [own] if own.is_file() else sorted(ROOT.glob("build/*/tests/libcuda_stand_in.so"), key=os.path.getmtime)
    if not built:
        pytest.skip("the stand-in for the driver is not built")
    return str(built[-1])


def view(address, size, lease):
    memory = type("Memory", (ctypes.c_ubyte * max(size, 1),), {}).from_address(address)
    memory.lease = lease
    return torch.frombuffer(memory, dtype=torch.uint8, count=size) if size else torch.empty(0, dtype=torch.uint8)


class Worker:
    """Lends regions, as worker/device_lender does."""

    def __init__(self):
        self.library = ctypes.CDLL(stand_in())
        self.gpu = Gpu(0, stand_in(), view)
        self.address, self.size = ctypes.c_uint64(), 2 * MIB
        assert self.library.cuMemAlloc_v2(ctypes.byref(self.address), ctypes.c_size_t(self.size)) == 0
        self.bytes = np.frombuffer((ctypes.c_ubyte * self.size).from_address(self.address.value), np.uint8)
        handles = [(ctypes.c_ubyte * 64)(), (ctypes.c_ubyte * 64)()]
        assert self.library.cuIpcGetMemHandle(handles[0], self.address) == 0
        assert self.library.cuIpcGetEventHandle(handles[1], None) == 0
        self.handles = [bytes(handle).hex() for handle in handles]

    def region(self, **arrays):
        tensors, offset = [], 0
        for name, array in arrays.items():
            self.bytes[offset : offset + array.nbytes] = np.frombuffer(array.tobytes(), np.uint8)
            strides = [stride // array.itemsize for stride in array.strides]
            tensors.append({"name": name, "of": "", "offset": offset, "dtype": str(array.dtype),
                            "shape": list(array.shape), "strides": strides})  # fmt: skip
            offset += -(-array.nbytes // 256) * 256
        return {"segment": -1, "bytes": self.size, "memory": self.handles[0], "ready": self.handles[1],
                "tensors": tensors}  # fmt: skip

    def batch(self, **arrays):
        return DeviceBatch("cpu", self.gpu.open(self.region(**arrays)), Batch())

    def read(self, said):
        flat = np.frombuffer(self.bytes.tobytes(), said["dtype"], offset=said["offset"])
        strides = [stride * flat.itemsize for stride in said["strides"]]
        return np.lib.stride_tricks.as_strided(flat, said["shape"], strides)


@pytest.fixture
def worker():
    made = Worker()
    yield made
    made.library.stand_in_break(0)
    made.gpu.forget()
    made.library.cuMemFree_v2(made.address)


X = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_an_input_is_where_the_worker_has_put_it(worker):
    batch = worker.batch(x=X, ids=np.array([3, 4], np.int64))
    assert batch["x"].tolist() == X.tolist() and batch["ids"].dtype == torch.int64
    assert (batch.dtype("x"), batch.shape("x"), list(batch)) == ("float32", (2, 3), ["x", "ids"])
    assert batch.finish() == ([], ["x", "ids"], [], [])


def test_what_is_changed_in_place_lies_in_the_region(worker):
    batch = worker.batch(x=X, y=X)
    batch.torch().mutable("x").add_(1)
    changed, kept, in_region, payloads = batch.finish()
    assert (changed, kept, payloads) == ([], ["y"], [])
    assert in_region == [{"name": "x", "of": "", "offset": 0, "dtype": "float32", "shape": [2, 3], "strides": [3, 1]}]
    assert worker.read(in_region[0]).tolist() == (X + 1).tolist()


def test_a_permutation_and_a_slice_are_not_copied(worker):
    batch = worker.batch(x=X, y=X)
    batch["x"] = batch["x"].T
    batch["y"] = batch["y"][1:, :2]
    in_region = {said["name"]: said for said in batch.finish()[2]}
    assert (in_region["x"]["offset"], in_region["x"]["strides"]) == (0, [1, 3])
    assert in_region["y"]["offset"] == 256 + 12
    assert worker.read(in_region["x"]).tolist() == X.T.tolist()
    assert worker.read(in_region["y"]).tolist() == X[1:, :2].tolist()


def test_new_tensors_go_behind_the_inputs_or_to_host_memory(worker):
    batch = worker.batch(x=X)
    batch["new"] = torch.full((3,), 7, dtype=torch.bfloat16)
    batch["numbers"] = [1, 2]
    batch["large"] = torch.ones(MIB)
    batch["none"] = torch.empty(0, 4)
    changed, kept, in_region, payloads = batch.finish()
    assert kept == ["x"] and [said["name"] for said in in_region] == ["new", "numbers", "none"]
    assert [said["name"] for said in changed] == ["large"] and payloads[0].nbytes == 4 * MIB
    assert all(said["offset"] % 256 == 0 for said in in_region[:2]) and in_region[0]["offset"] >= X.nbytes
    assert worker.read(in_region[1]).tolist() == [1, 2]


def test_a_write_into_an_input_that_is_kept_is_an_error_not_a_silent_loss(worker):
    batch = worker.batch(x=X, y=X)
    batch["y"]
    batch.mutable("x").add_(1)
    batch["y"].add_(1)
    with pytest.raises(RuntimeError, match=r'batch\["y"\] was changed in place, but it is read-only; use batch.mutable'):
        batch.finish()


def test_what_was_seen_stays_as_it_was_seen(worker):
    batch = worker.batch(x=X)
    before = batch["x"]
    batch.mutable("x").add_(1)
    assert before.tolist() == X.tolist() and batch["x"].tolist() == (X + 1).tolist()
    said = batch.finish()[2][0]
    assert said["offset"] >= X.nbytes and worker.read(said).tolist() == (X + 1).tolist()


def test_names_that_are_not_there_and_values_that_cannot_be_carried(worker):
    batch = worker.batch(x=X)
    with pytest.raises(KeyError, match='the batch has no "y"; it has x'):
        batch["y"]
    with pytest.raises(TypeError, match="complex64, which is not carried"):
        batch["c"] = torch.ones(1, dtype=torch.complex64)
    with pytest.raises(ValueError, match="9 dimensions; at most 8"):
        batch["d"] = torch.ones([1] * 9)
    del batch["x"]
    assert list(batch) == [] and batch.finish()[:3] == ([], [], [])


def test_without_a_region_tensors_are_made_of_host_memory():
    host = Batch([("x", "float32", (2, 3), X.tobytes()), ("y", "float32", (2, 3), X.tobytes())])
    batch = DeviceBatch("cpu", None, host)
    batch.mutable("x").add_(1)
    changed, kept, in_region, payloads = batch.finish()
    assert kept == ["y"] and in_region == [] and [said["name"] for said in changed] == ["x"]
    assert payloads[0].tolist() == (X + 1).tolist()


def test_a_region_is_held_for_as_long_as_somebody_looks_at_it(worker):
    batch = worker.batch(x=X)
    kept = batch["x"]
    del batch
    assert worker.gpu.held() == [(-1, 0)] and worker.gpu.take_unused() == []
    del kept
    gc.collect()
    assert worker.gpu.take_unused() == [(-1, 0)] and worker.gpu.take_unused() == []
    batch = worker.batch(x=X)
    batch["x"].sum()
    del batch
    assert worker.gpu.held() == []


def test_what_goes_after_its_worker_is_given_back_to_nobody(worker):
    batch = worker.batch(x=X)
    kept = batch["x"]
    del batch
    assert worker.gpu.held() == [(-1, 0)]
    worker.gpu.forget()
    assert kept.tolist() == X.tolist()
    del kept
    gc.collect()
    assert worker.gpu.take_unused() == []


def test_a_block_is_opened_once_and_closed_with_the_worker(worker):
    before = worker.library.stand_in_opened()
    worker.batch(x=X)
    worker.batch(x=X)
    assert worker.library.stand_in_opened() == before + 1
    worker.gpu.held()
    worker.gpu.forget()
    assert worker.library.stand_in_opened() == before


def test_a_region_that_cannot_be_is_malformed(worker):
    for key, value in (("offset", -4), ("offset", 2), ("offset", 2 * MIB), ("shape", [2, MIB]), ("strides", [1]),
                       ("dtype", "float3"), ("shape", [-1, 3])):  # fmt: skip
        said = worker.region(x=X)
        said["tensors"][0][key] = value
        with pytest.raises(Malformed):
            worker.gpu.open(said)
    with pytest.raises(Malformed, match="a handle that is not 128 hexadecimal digits"):
        worker.gpu.open({**worker.region(x=X), "segment": -2, "memory": "zz"})
    with pytest.raises(GpuLost, match="error 400 .invalid handle. in cuIpcOpenMemHandle_v2"):
        worker.gpu.open({**worker.region(x=X), "segment": -2, "memory": "0" * 128})


def test_an_error_of_the_gpu_ends_the_process_and_one_of_the_plugin_does_not(worker):
    worker.gpu.check(ValueError("the plugin's own"))
    worker.library.stand_in_break(700)
    with pytest.raises(GpuLost, match="the GPU stopped with error 700: illegal"):
        worker.gpu.check(RuntimeError("illegal"))
    with pytest.raises(GpuLost, match="error 700"):
        worker.gpu.finish()
    worker.library.stand_in_break(0)
    with pytest.raises(GpuLost, match="the GPU has no more memory: tried"):
        worker.gpu.check(torch.OutOfMemoryError("tried"))


def test_a_copy_of_the_ranks_is_waited_for_but_not_for_ever(worker, monkeypatch):
    worker.library.stand_in_delay(50)
    assert worker.batch(x=X)["x"].tolist() == X.tolist()
    worker.library.stand_in_delay(1 << 30)
    monkeypatch.setattr("bulkhead.device._PATIENCE_SECONDS", 0.01)
    with pytest.raises(GpuLost, match="a copy of the rank's has not come"):
        worker.batch(x=X)
    worker.library.stand_in_delay(0)


def test_a_gpu_that_is_not_there_is_a_sentence():
    with pytest.raises(NoGpu, match="the rank is on cpu"):
        open_gpu("cpu")
    with pytest.raises(NoGpu, match="there is no CUDA driver here: libnone.so"):
        Gpu(0, "libnone.so", view)
    with pytest.raises(NoGpu, match="GPU 7 cannot be used: cuDeviceGet gave 101"):
        Gpu(7, stand_in(), view)
    if not torch.cuda.is_available():
        with pytest.raises(NoGpu, match="of the plugin's Python finds no GPU"):
            open_gpu("cuda:0")
