"""Shared memory as a host sees it, with the worker's side played over the real socket and real memfds."""

import fcntl
import gc
import mmap
import os
import socket
import struct

import numpy as np
import pytest

from bulkhead import Batch
from bulkhead.memory import Memory
from bulkhead.wire import Malformed

OPEN = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL  # the host may write to it
SEALS = OPEN | 0x10
MIB = 1 << 20


class Worker:
    """The other end: shows segments, maps what it is shown."""

    def __init__(self, tmp_path):
        self.path = str(tmp_path / "memory")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(self.path)
        listener.listen()
        self.host = Memory(self.path)
        self.socket, _ = listener.accept()
        self.socket.setblocking(False)
        listener.close()
        self.host.news([], [])
        self.maps, self.shown = {}, {}

    def segment(self, array, number=1, seals=SEALS):
        """Shows `array` as a segment, which stays writable through what it returns."""
        fd = os.memfd_create("test", os.MFD_ALLOW_SEALING)
        os.posix_fallocate(fd, 0, array.nbytes)
        memory = mmap.mmap(fd, array.nbytes)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        own = np.frombuffer(memory, dtype=array.dtype)
        own[:] = array.reshape(-1)
        socket.send_fds(self.socket, [struct.pack("<q", number)], [fd])
        os.close(fd)
        self.maps[number] = own
        return own

    def read(self, place, dtype, shape):
        """What the host has named."""
        while True:
            try:
                packet, fds, _, _ = socket.recv_fds(self.socket, 8, 1)
            except BlockingIOError:
                break
            assert fcntl.fcntl(fds[0], fcntl.F_GET_SEALS) & SEALS == SEALS
            size = os.fstat(fds[0]).st_size
            self.shown[struct.unpack("<q", packet)[0]] = mmap.mmap(fds[0], size, prot=mmap.PROT_READ)
            with pytest.raises(PermissionError):
                mmap.mmap(fds[0], size)
            os.close(fds[0])
        whole = np.frombuffer(self.shown[place["segment"]], dtype=np.uint8)
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return whole[place["offset"] : place["offset"] + size].view(dtype).reshape(shape)


@pytest.fixture
def worker(tmp_path):
    made = Worker(tmp_path)
    yield made
    made.host.close()
    made.socket.close()


def batch_of(worker, array, number=1, writable=()):
    data = worker.host.find((number, 0), array.nbytes, array.itemsize)
    return Batch([("x", array.dtype.name, array.shape, data)], worker.host, writable)


def said(batch):
    """What the reply says of its outputs: pieces as text, names sent, names kept."""
    pieces = batch.pieces()
    changed, kept, _ = batch.output()
    texts = [f"{p['name']} {p['of']}+{p['offset']} {p['shape']} {p['strides']}" for p in pieces]
    return texts, [tensor["name"] for tensor in changed], kept


def floats(count):
    return np.arange(count, dtype=np.float32)


def test_an_input_is_seen_without_a_copy(worker):
    own = worker.segment(floats(5000))
    batch = batch_of(worker, own)
    assert np.array_equal(batch["x"], own)
    own[7] = -1  # a worker never does this; here it shows that nothing was copied
    assert batch["x"][7] == -1
    assert batch.output() == ([], ["x"], [])


def test_an_input_cannot_be_written_to(worker):
    batch = batch_of(worker, worker.segment(floats(5000)))
    with pytest.raises(ValueError):
        batch["x"][0] = 5
    with pytest.raises(ValueError):
        batch["x"].flags.writeable = True


def test_a_stray_write_stays_in_this_process_and_is_forgotten(worker):
    own = worker.segment(floats(5000))
    data = worker.host.writable(worker.host.find((1, 0), own.nbytes, 4))
    assert np.array_equal(data.view(np.float32), own)
    assert not worker.host.was_written(data)
    data[4096:4100] = 9
    assert worker.host.was_written(data)
    assert np.array_equal(own, floats(5000)), "the worker's bytes are whole"
    worker.host.undo(data)
    assert np.array_equal(data.view(np.float32), own), "and are seen again"
    assert not worker.host.was_written(data)


def test_torch_sees_the_input_and_a_write_in_place_is_an_error(worker):
    torch = pytest.importorskip("torch")
    own = worker.segment(floats(5000))
    batch = batch_of(worker, own)
    tensor = batch.torch()["x"]
    assert torch.equal(tensor, torch.arange(5000, dtype=torch.float32))
    tensor.numpy()[17] = -3  # behind torch's back
    with pytest.raises(RuntimeError, match="changed in place"):
        batch.output()
    assert own[17] == 17


def test_mutable_is_a_slot_that_is_already_the_output(worker):
    own = worker.segment(floats(5000))
    batch = batch_of(worker, own)
    batch.mutable("x")[3] = 42
    changed, kept, payloads = batch.output()
    assert (kept, payloads) == ([], [])
    expected = floats(5000)
    expected[3] = 42
    assert np.array_equal(worker.read(changed[0]["place"], np.float32, (5000,)), expected)
    assert own[3] == 3


def test_a_new_array_is_copied_once_whatever_its_strides(worker):
    batch = batch_of(worker, worker.segment(floats(6000)))
    batch["y"] = batch["x"].reshape(60, 100).T
    changed, _, payloads = batch.output()
    assert payloads == []
    assert np.array_equal(worker.read(changed[0]["place"], np.float32, (100, 60)), floats(6000).reshape(60, 100).T)


def test_an_input_given_away_is_changed_where_it_lies(worker):
    own = worker.segment(floats(2048).reshape(2, 1024), seals=OPEN)
    batch = batch_of(worker, floats(2048).reshape(2, 1024), writable=["x"])
    batch.mutable("x")[1, 0] += 0.5
    assert batch["x"][1, 0] == own[1024] == 1024.5
    assert batch.mutable("x")[1, 0] == 1024.5
    assert said(batch) == (["x x+0 [2, 1024] [1024, 1]"], [], [])


@pytest.mark.parametrize("look", ["numpy", "torch"])
def test_an_input_that_was_looked_at_stays_as_it_is(worker, look):
    if look == "torch":
        pytest.importorskip("torch")
    own = worker.segment(floats(2048), seals=OPEN)
    batch = batch_of(worker, floats(2048), writable=["x"])
    before = batch["x"] if look == "numpy" else batch.torch()["x"]
    batch.mutable("x")[0] = 99
    assert before[0] == own[0] == 0
    assert batch["x"][0] == 99
    assert said(batch) == ([], ["x"], [])


def test_memory_that_is_not_given_away_is_not_written_to(worker):
    own = worker.segment(floats(2048))
    batch = batch_of(worker, floats(2048), writable=["x"])  # the worker says so, its seals do not
    batch.mutable("x")[0] = 99
    assert own[0] == 0
    assert said(batch) == ([], ["x"], [])


def test_slices_and_permutations_are_said_and_not_sent(worker):
    worker.segment(floats(2048))
    batch = batch_of(worker, floats(2048).reshape(32, 64))
    batch["turned"] = batch["x"].T
    batch["odd"] = batch["x"][1::2, 3:5]
    batch["one"] = batch["x"][31, 63]  # a copy: numpy's scalar
    batch["x"] = batch["x"][:16]
    assert said(batch) == (
        ["turned x+0 [64, 32] [1, 64]", "odd x+268 [16, 2] [128, 1]", "x x+0 [16, 64] [64, 1]"],
        ["one"],
        [],
    )


def test_pieces_of_an_input_that_was_sent_are_said_too():
    array = floats(4)
    batch = Batch([("x", "float32", (4,), array.tobytes())])
    batch["x"] = batch["x"][::2]
    assert said(batch) == (["x x+0 [2] [2]"], [], [])


def test_what_is_no_piece_is_sent(worker):
    worker.segment(floats(2048))
    batch = batch_of(worker, floats(2048))
    batch["backwards"] = batch["x"][::-1]
    batch["other_type"] = batch["x"].view(np.int32)
    batch["own"] = batch["x"] + 1
    batch["none"] = batch["x"][:0]
    assert said(batch) == ([], ["backwards", "other_type", "own", "none"], ["x"])


def test_pieces_through_torch(worker):
    torch = pytest.importorskip("torch")
    worker.segment(floats(2048))
    batch = batch_of(worker, floats(2048).reshape(32, 64))
    batch.torch()["turned"] = batch.torch()["x"].permute(1, 0)
    assert said(batch) == (["turned x+0 [64, 32] [1, 64]"], [], ["x"])
    batch = batch_of(worker, floats(2048).reshape(32, 64))
    view = batch.torch()["x"][0]
    view += torch.ones(64)  # in memory of this process alone
    batch.torch()["x"] = view
    pieces, sent, _ = said(batch)
    assert (pieces, sent) == ([], ["x"])
    assert batch["x"][1] == 2


def test_a_strided_input(worker):
    worker.segment(floats(2048))
    data = worker.host.find((1, 4), (63 * 32 + 2) * 4, 4)
    batch = Batch([("x", "float32", (64, 2), data, (32, 1))], worker.host, ["x"])
    assert batch["x"].tolist()[:2] == [[1, 2], [33, 34]]
    with pytest.raises(ValueError):
        batch["x"][0, 0] = 1
    batch["y"] = batch["x"][:, 1]
    batch.mutable("x")[:] += 1
    assert batch["x"].tolist()[1] == [34, 35]
    assert said(batch) == (["y x+4 [64] [32]"], ["x"], [])


def test_small_outputs_are_sent(worker):
    batch = batch_of(worker, worker.segment(floats(5000)))
    batch["y"] = np.float32([1, 2])
    changed, _, payloads = batch.output()
    assert "place" not in changed[0] and payloads[0].tolist() == [1, 2]


def test_a_slot_is_used_again_once_it_is_given_back(worker):
    worker.segment(floats(5000))

    def call():
        batch = batch_of(worker, floats(5000))
        batch.mutable("x")[0] += 1
        changed, _, _ = batch.output()
        worker.host.end_call()
        return changed[0]["place"]

    first, second = call(), call()
    assert first != second
    worker.host.news([(first["segment"], first["offset"])], [])
    assert call() == first
    with pytest.raises(Malformed):
        worker.host.news([(first["segment"], first["offset"] + 64)], [])


def test_a_slot_that_was_not_used_is_free_after_the_call(worker):
    worker.segment(floats(5000))
    taken = set()
    for _ in range(3):
        batch = batch_of(worker, floats(5000))
        taken.add(batch.mutable("x").__array_interface__["data"][0])
        del batch["x"]
        batch.output()
        del batch
        worker.host.end_call()
    assert len(taken) == 1


def test_what_a_plugin_goes_on_looking_at_is_held(worker):
    worker.segment(floats(5000))
    batch = batch_of(worker, floats(5000))
    kept = batch["x"][10:20]
    del batch
    gc.collect()
    assert worker.host.held() == [(1, 0)]
    assert worker.host.take_unused() == []
    del kept
    gc.collect()
    assert worker.host.take_unused() == [(1, 0)]
    assert worker.host.take_unused() == []


def test_what_nobody_looks_at_is_not_held(worker):
    worker.segment(floats(5000))
    batch = batch_of(worker, floats(5000))
    assert batch["x"].sum() > 0
    del batch
    assert worker.host.held() == [] and worker.host.take_unused() == []


def test_a_closed_segment_can_still_be_read(worker):
    worker.segment(floats(5000))
    batch = batch_of(worker, floats(5000))
    worker.host.news([], [1])
    assert batch["x"][4999] == 4999
    with pytest.raises(Malformed, match="not shown"):
        worker.host.find((1, 0), 4, 4)


def test_places_that_cannot_be(worker):
    worker.segment(floats(1024))
    for place, size, itemsize in [((1, 0), 4097, 1), ((1, 4096), 4, 4), ((1, -4), 4, 4), ((2, 0), 4, 4), ((1, 2), 4, 4)]:
        with pytest.raises(Malformed):
            worker.host.find(place, size, itemsize)
    assert worker.host.find((1, 4096), 0, 4).size == 0


def test_memory_that_the_worker_could_shrink_is_refused(worker):
    worker.segment(floats(1024), seals=fcntl.F_SEAL_GROW)
    with pytest.raises(Malformed, match="not sealed"):
        worker.host.find((1, 0), 4, 4)


def test_a_full_machine_means_that_bytes_are_sent(worker, monkeypatch):
    monkeypatch.setattr("bulkhead.memory.most_bytes", lambda: 4 * MIB)
    worker.segment(floats(2 * MIB))
    batch = batch_of(worker, floats(2 * MIB))
    batch.mutable("x")[0] = 1
    changed, _, payloads = batch.output()
    assert "place" not in changed[0] and payloads[0].nbytes == 8 * MIB


def test_a_segment_that_is_not_there_is_refused(worker):
    """Its pages would have to be found when they are first looked at, by this process."""
    fd = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, MIB)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    socket.send_fds(worker.socket, [struct.pack("<q", 1)], [fd])
    os.close(fd)
    with pytest.raises(Malformed, match="not allocated"):
        worker.host.find((1, 0), 4096, 4)
