"""The Python end of a ring: against the C++ end in a process of its own, against itself, and against one that lies."""

import fcntl
import mmap
import os
import pathlib
import select
import socket
import struct
import subprocess
import time

import pytest
import zmq

from bulkhead import messages, ring, wire
from conftest import ROOT

pytestmark = pytest.mark.skipif(not ring.available(), reason="no rings for this Python on this machine")
PEER = pathlib.Path(os.environ.get("BULKHEAD_BUILD_DIR", ROOT / "build" / "release")) / "tests" / "ring_peer"
PATIENCE = 30.0  # seconds


@pytest.fixture
def pair():
    left, right = (ring.RingSocket(end, 4096) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    assert left.receive() is None and right.receive() is None  # they have met
    yield left, right
    left.close()
    right.close()


@pytest.fixture
def echo(tmp_path):
    """Starts a C++ process that sends back what it gets; its end here."""
    started = []

    def start(ring_bytes=ring.RING_BYTES, peer_bytes=ring.RING_BYTES):
        path = str(tmp_path / f"ring{len(started)}")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(path)
            listener.listen(1)
            process = subprocess.Popen([PEER, "echo", path, str(peer_bytes)])
            listener.settimeout(PATIENCE)
            connection, _ = listener.accept()
        end = ring.RingSocket(connection, ring_bytes)
        started.append((process, end))
        return process, end

    yield start
    for process, end in started:
        end.close()
        process.wait(PATIENCE)


def receive(end):
    """The next message, waiting as a poller does."""
    poll = select.poll()
    for descriptor in end.descriptors():
        poll.register(descriptor, select.POLLIN)
    deadline = time.monotonic() + PATIENCE
    while True:
        message = end.receive()
        if message is not None:
            return message
        left = deadline - time.monotonic()
        assert left > 0, "nothing came"
        poll.poll(left * 1000)


def beat(step):
    return wire.pack({"type": "heartbeat", "generation": 1, "step": step})


def step_of(frames):
    return wire.unpack(frames)["step"]


def state(data):
    """A call that carries `data`, as frames."""
    return [wire.pack({"type": "call", "state": {"bytes": len(data)}}), *map(bytes, wire.chunks(data))]


def send(end, frames):
    for frame in frames[:-1]:
        end.send(frame, zmq.SNDMORE)
    end.send(frames[-1])


# ----- With the C++ end -----


def test_it_speaks_with_cpp_one_by_one_and_many_at_once(echo):
    process, end = echo()
    for step in range(200):
        end.send(beat(step))
        assert step_of(receive(end)) == step
    for step in range(5000):
        end.send(beat(step))
    assert [step_of(receive(end)) for _ in range(5000)] == list(range(5000))
    assert process.poll() is None


@pytest.mark.parametrize("ring_bytes, peer_bytes", [(4096, 4096), (4096, 1 << 20), (1 << 20, 8192)])
def test_it_passes_to_cpp_and_back_more_than_a_ring_holds(echo, ring_bytes, peer_bytes):
    _, end = echo(ring_bytes, peer_bytes)
    data = os.urandom(3_000_001)
    for size in (0, 1, 7, 8, 4000, 4096, 5000, 1 << 20, (1 << 20) + 1, len(data)):
        send(end, state(data[:size]))
        assert bytes(messages.decode(receive(end))[1]["state"]) == data[:size], size


def test_it_notices_that_cpp_has_died(echo):
    process, end = echo()
    end.send(beat(1))
    assert step_of(receive(end)) == 1
    process.kill()
    with pytest.raises(ring.PeerGone):
        receive(end)
    with pytest.raises(ring.PeerGone):
        end.send(beat(2))


def test_cpp_notices_that_it_has_closed_and_gets_what_lingered(echo):
    process, end = echo(4096)
    send(end, state(bytes(500_000)))
    end.close(linger=10_000)
    assert process.wait(PATIENCE) == 0


# ----- With itself -----


def test_it_passes_messages_across_its_end_at_every_place(pair):
    left, right = pair
    for size in range(600):
        frames = [os.urandom(size), b"", os.urandom(size // 3)]
        send(left, frames)
        left.send(frames[0])
        assert receive(right) == frames
        assert receive(right) == [frames[0]]


def test_it_keeps_what_has_no_room_and_passes_it_on_when_there_is(pair):
    left, right = pair
    for step in range(2000):
        left.send(beat(step))
        right.send(beat(-step))
    got = [0, 0]
    while min(got) < 2000:
        for index, (end, sign) in enumerate(((right, 1), (left, -1))):
            message = end.receive()
            if message is not None:
                assert step_of(message) == sign * got[index]
                got[index] += 1


def test_it_gives_zeromqs_answers(pair):
    left, right = pair
    with pytest.raises(zmq.Again):
        right.recv_multipart(zmq.DONTWAIT)
    left.send(memoryview(b"view"), zmq.SNDMORE)
    left.send(bytearray(b"more"), copy=False)
    receive_now = right.recv_multipart
    assert receive_now(zmq.DONTWAIT) == [b"view", b"more"]
    assert left.getsockopt(zmq.EVENTS) & zmq.POLLOUT


def test_it_is_rung_once_for_each_sleep(pair):
    left, right = pair
    bell, _ = right.descriptors()
    right.send(b"x")
    receive(left)  # knows the right end now
    assert right.receive() is None  # asleep
    left.send(b"1")
    left.send(b"2")
    assert os.eventfd_read(bell) == 1
    assert [receive(right), receive(right)] == [[b"1"], [b"2"]]


def test_it_delivers_what_a_gone_peer_has_sent(pair):
    left, right = pair
    left.send(b"last")
    left.close()
    left.close()
    assert receive(right) == [b"last"]
    with pytest.raises(ring.PeerGone):
        receive(right)


def test_it_refuses_sizes_that_are_none():
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for size in (0, 4095, 5000, 128 << 20):
        with pytest.raises(ValueError, match="power of two"):
            ring.RingSocket(one, size)
    one.close()
    two.close()


def test_it_leaves_nothing_open():
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        left, right = (ring.RingSocket(end) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        left.send(b"x")
        assert receive(right) == [b"x"]
        left.close()
        right.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_it_connects_to_a_path(tmp_path):
    path = str(tmp_path / "ring")
    with pytest.raises(OSError):
        ring.connect(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen(1)
        left = ring.connect(path)
        right = ring.RingSocket(listener.accept()[0])
    left.send(b"x")
    assert receive(right) == [b"x"]
    left.close()
    right.close()


# ----- With one that lies -----


class Liar:
    """The other end, made by hand from protocol/README.md."""

    SEALS = 0x17

    def __init__(self, connection):
        self.connection = connection
        self.memory = os.memfd_create("liar", os.MFD_ALLOW_SEALING)
        os.posix_fallocate(self.memory, 0, 8192)
        self.map = mmap.mmap(self.memory, 8192)
        self.map[:24] = struct.pack("<8sIIQ", b"bulkring", 1, 4096, 4096)
        self.bell = os.eventfd(0, os.EFD_NONBLOCK)

    def show(self, seals=SEALS, greeting=b"bulkring 1"):
        fcntl.fcntl(self.memory, fcntl.F_ADD_SEALS, seals)
        socket.send_fds(self.connection, [greeting], [self.memory, self.bell])

    def put(self, place, data):
        self.map[place : place + len(data)] = data

    def close(self):
        self.map.close()
        os.close(self.memory)
        os.close(self.bell)
        self.connection.close()


@pytest.fixture
def lied_to():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    end, liar = ring.RingSocket(ours, 4096), Liar(theirs)
    yield end, liar
    end.close()
    liar.close()


@pytest.mark.parametrize(
    "lie, complaint",
    [
        (lambda liar: liar.show(seals=0x15), "not sealed"),
        (lambda liar: (os.ftruncate(liar.memory, 4096), liar.show()), "does not hold a ring of 4096"),
        (lambda liar: (liar.put(0, b"B"), liar.show()), "not a ring"),
        (lambda liar: (liar.put(8, b"\2"), liar.show()), "version 2"),
        (lambda liar: (liar.put(23, b"\x80"), liar.show()), "does not hold"),
        (lambda liar: liar.show(greeting=b"bulkring 2"), "greeting"),
        (lambda liar: (os.dup2(liar.connection.fileno(), liar.bell), liar.show()), "not an eventfd"),
        (lambda liar: (liar.show(), liar.connection.send(b"x")), "more than its ring"),
        (lambda liar: (liar.put(64, struct.pack("<Q", 4097)), liar.show()), "impossible head"),
        (lambda liar: (liar.put(64, struct.pack("<Q", 16)), liar.show()), "a message of 0 frames"),
        (
            lambda liar: (liar.put(64, struct.pack("<Q", 16)), liar.put(4096, b"\xff" * 4), liar.show()),
            "a message of 4294967295 frames",
        ),
        (
            lambda liar: (liar.put(64, b"\x10"), liar.put(4096, struct.pack("<II", 1, 1 << 30)), liar.show()),
            "a frame of 1073741824 bytes",
        ),
    ],
)
def test_it_refuses_lies(lied_to, lie, complaint):
    end, liar = lied_to
    lie(liar)
    with pytest.raises(wire.Malformed, match=complaint):
        for _ in range(4):
            end.receive()


def test_it_refuses_indices_that_go_wrong_later(lied_to):
    end, liar = lied_to
    liar.put(4096, struct.pack("<II", 1, 100))
    liar.put(64, struct.pack("<Q", 8))
    liar.show()
    assert end.receive() is None
    liar.put(64, struct.pack("<Q", 4))
    with pytest.raises(wire.Malformed, match="impossible head"):
        end.receive()
    liar.put(128, struct.pack("<Q", 5000))
    with pytest.raises(wire.Malformed, match="nobody sent"):
        end.send(bytes(10_000))


def test_it_does_not_wait_at_a_bell_that_is_full(lied_to):
    end, liar = lied_to
    os.eventfd_write(liar.bell, 2**64 - 2)
    liar.put(136, struct.pack("<I", 1))
    liar.show()
    assert end.receive() is None
    liar.put(136, struct.pack("<I", 2))
    end.send(b"x")
