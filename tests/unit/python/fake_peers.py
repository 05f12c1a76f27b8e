"""A coordinator and a worker as far as a host sees them: two ROUTER sockets and messages as plain dicts."""

import shutil
import tempfile
import time

import msgpack
import zmq

SECONDS = 20  # for anything that a host does
FACTS = {"rank": 1, "world_size": 2, "run_seed": 7, "plugin": "plug", "run_dir": "", "scope": "rank"}


class Peer:
    """A ROUTER with one client; whoever speaks last is the client."""

    def __init__(self, context, folder, name, generation):
        self.socket = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.endpoint = f"ipc://{folder}/{name}"
        self.socket.bind(self.endpoint)
        self.generation = generation
        self.client = None

    def receive(self, *types, seconds=SECONDS):
        """(message, its frames) of the next message of one of `types`; heartbeats pass unless asked for."""
        deadline = time.monotonic() + seconds
        while self.socket.poll(max(0, (deadline - time.monotonic()) * 1000)):
            self.client, *frames = self.socket.recv_multipart()
            message = msgpack.unpackb(frames[0])
            if message["type"] == "heartbeat" and "heartbeat" not in types:
                continue
            assert not types or message["type"] in types, message
            return message, frames[1:]
        raise AssertionError(f"no message of {types} within {seconds} s")

    def send(self, kind, *frames, **fields):
        fields.setdefault("generation", self.generation)
        self.socket.send_multipart([self.client, msgpack.packb({"type": kind, **fields}), *frames])

    def greet(self):
        hello, _ = self.receive("hello")
        self.send("welcome", version=1)
        return hello

    def call(self, seq, hook, *frames, **fields):
        self.send("call", *frames, seq=seq, hook=hook, **fields)
        return self.receive("reply", "note", "progress")


class Peers:
    """Both, with an environment for the host that is to connect."""

    def __init__(self):
        self.context = zmq.Context()
        self.folder = tempfile.mkdtemp()  # short enough for a socket's path
        self.control = Peer(self.context, self.folder, "control", 3)
        self.environment = {
            "BULKHEAD_ENDPOINT": self.control.endpoint, "BULKHEAD_SECRET": "s", "BULKHEAD_GENERATION": "4",
            "BULKHEAD_PLUGIN": "2", "BULKHEAD_RANK": "1",
        }  # fmt: skip
        self._workers = []

    def worker(self, generation=9):
        self._workers.append(Peer(self.context, self.folder, f"data-{len(self._workers)}", generation))
        return self._workers[-1]

    def load(self, config, **facts):
        """Handshake and load; the host's answer."""
        self.control.greet()
        self.control.send("load", config=config, facts={**FACTS, **facts})
        return self.control.receive("loaded", "load_failed")[0]

    def attach(self, worker):
        self.control.send("attach", endpoint=worker.endpoint, worker_generation=worker.generation)
        return worker.greet()

    def close(self):
        for peer in [self.control, *self._workers]:
            peer.socket.close()
        self.context.term()
        shutil.rmtree(self.folder, ignore_errors=True)
