"""The host over real sockets: in a thread for its life as the protocol tells it, as a process for its ends."""

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from conftest import ROOT
from fake_peers import SECONDS, Peers

from bulkhead import host, link

COUNTING = """
import sys
from bulkhead import Plugin
class P(Plugin):
    def __init__(self): self.n = 0
    def on_step_end(self, ctx):
        self.n += 1
        ctx.log(f"n is {self.n}")
        if ctx.global_step == 7: raise ValueError("seven")
        if ctx.global_step == 8: sys.exit(3)
    def transform_train_batch(self, batch, ctx):
        batch.mutable("x")[...] += self.n
"""


@pytest.fixture
def peers():
    peers = Peers()
    yield peers
    peers.close()


@pytest.fixture
def running(peers):
    """A Host in a thread of its own; join() gives its exit status."""

    class Running(threading.Thread):
        status = None

        def run(self):
            try:
                self.status = host.Host(peers.environment).run()
            except (link.Refused, host.Malformed) as error:
                self.status = error

        def end(self):
            self.join(SECONDS)
            assert not self.is_alive()
            return self.status

    thread = Running(daemon=True)
    thread.start()
    return thread


def test_a_life_from_hello_to_stop(peers, running, plugin_file):
    hello = peers.control.greet()
    assert hello == {"type": "hello", "generation": 4, "magic": "bulkhead", "version_min": 1, "version_max": 1,
                     "role": "host", "rank": 1, "plugin": 2, "pid": os.getpid(), "secret": "s",
                     "capabilities": []}  # fmt: skip
    peers.control.send("load", config=plugin_file(COUNTING), facts={"plugin": "plug"})
    loaded, _ = peers.control.receive("loaded")
    assert loaded["traits"]["hooks"] == ["on_step_end", "transform_train_batch"]

    worker = peers.worker()
    hello = peers.attach(worker)
    assert (hello["generation"], hello["secret"]) == (4, "s")
    note, _ = worker.call(1, "on_step_end")
    assert (note["type"], note["text"]) == ("note", "n is 1")
    reply, _ = worker.receive("reply")
    assert (reply["seq"], reply["generation"], reply["failure"]) == (1, 4, None)

    x = np.zeros((1 << 19) + 1, np.float32)
    data = x.tobytes()
    pieces = [data[: 1 << 20], data[1 << 20 : 2 << 20], data[2 << 20 :]]
    batch = [{"name": "x", "dtype": "float32", "shape": [x.size]}, {"name": "y", "dtype": "uint8", "shape": [1]}]
    reply, frames = worker.call(2, "transform_train_batch", *pieces, b"z", batch=batch)
    assert [len(frame) for frame in frames] == [1 << 20, 1 << 20, 4] and reply["kept"] == ["y"]
    assert np.frombuffer(b"".join(frames), np.float32).tolist() == [1.0] * x.size

    worker.call(3, "on_step_end", context={"global_step": 7})
    reply, _ = worker.receive("reply")
    assert reply["failure"]["message"] == "seven"

    peers.control.send("stop", reason="the end")
    assert running.end() == 0


def test_heartbeats_come_while_it_is_idle(peers, running, plugin_file):
    peers.load(plugin_file(COUNTING))
    for _ in range(2):
        assert peers.control.receive("heartbeat")[0] == {"type": "heartbeat", "generation": 4, "step": 0}
    peers.control.send("stop")
    assert running.end() == 0


def test_a_replaced_worker_finds_the_plugin_as_it_was(peers, running, plugin_file):
    peers.load(plugin_file(COUNTING))
    first, second = peers.worker(9), peers.worker(10)
    peers.attach(first)
    first.call(1, "on_step_end")
    first.receive("reply")
    peers.attach(second)
    assert second.call(2, "on_step_end")[0]["text"] == "n is 2"
    second.receive("reply")
    peers.control.send("stop")
    assert running.end() == 0


def test_messages_of_another_generation_are_dropped(peers, running, plugin_file):
    peers.load(plugin_file(COUNTING))
    worker = peers.worker(9)
    peers.attach(worker)
    worker.send("call", seq=1, hook="on_step_end", generation=8)
    assert worker.call(2, "on_step_end")[0]["seq"] == 2
    peers.control.send("stop", generation=2)
    worker.receive("reply")
    assert worker.call(3, "on_step_end")[0]["seq"] == 3
    peers.control.send("stop")
    assert running.end() == 0


def test_a_refusal_is_a_sentence(peers, running):
    peers.control.receive("hello")
    peers.control.send("refuse", reason="nobody waits for generation 4")
    assert str(running.end()) == "nobody waits for generation 4"


def test_a_plugin_that_cannot_be_loaded_ends_the_host_with_2(peers, running, plugin_file):
    failed = peers.load(plugin_file(COUNTING, name="c.py", n=3))
    assert (failed["type"], failed["stage"], failed["key"]) == ("load_failed", "arguments", "with.n")
    assert failed["failure"] == {"type": "Refused", "message": "with.n: P takes no arguments", "traceback": ""}
    assert running.end() == 2


def test_garbage_ends_the_host(peers, running, plugin_file):
    peers.load(plugin_file(COUNTING))
    worker = peers.worker()
    peers.attach(worker)
    worker.socket.send_multipart([worker.client, b"\xc1"])
    assert isinstance(running.end(), host.Malformed)


# ----- As a process -----


@pytest.fixture
def process(peers):
    environment = {**os.environ, **peers.environment, "PYTHONPATH": str(ROOT / "plugin-host" / "python")}
    child = subprocess.Popen([sys.executable, "-m", "bulkhead.host"], env=environment, stderr=subprocess.PIPE)
    yield child
    child.kill()
    child.communicate()


def test_the_exit_status_of_a_plugin_is_that_of_the_process(peers, process, plugin_file):
    peers.load(plugin_file(COUNTING))
    worker = peers.worker()
    peers.attach(worker)
    worker.call(1, "on_step_end", context={"global_step": 8})
    assert process.wait(SECONDS) == 3


def test_an_interrupt_is_ignored_and_a_stop_is_not(peers, process, plugin_file):
    peers.load(plugin_file(COUNTING))
    process.send_signal(signal.SIGINT)
    peers.control.receive("heartbeat")
    peers.control.send("stop")
    assert process.wait(SECONDS) == 0


def test_a_host_whose_coordinator_has_gone_ends(peers, process, plugin_file):
    peers.load(plugin_file(COUNTING))
    peers.control.socket.close()
    assert process.wait(SECONDS) == 0


@pytest.mark.parametrize(
    "how, status", [("segv", -signal.SIGSEGV), ("abort", -signal.SIGABRT), ("kill", -signal.SIGKILL),
                    ("exit0", 0), ("exit3", 3)]
)  # fmt: skip
def test_the_saboteur_dies_as_told(peers, process, tmp_path, how, status):
    config = {"file": str(ROOT / "plugins" / "saboteur.py"), "with": {"how": how, "step": 2, "rank": 1}}
    peers.load(config, run_dir=str(tmp_path))
    worker = peers.worker()
    peers.attach(worker)
    assert worker.call(1, "on_step_end", context={"global_step": 1})[0]["type"] == "reply"
    worker.send("call", seq=2, hook="on_step_end", context={"global_step": 2})
    assert process.wait(SECONDS) == status


def test_the_saboteur_talks_garbage_on_the_workers_connection(peers, process, tmp_path):
    config = {"file": str(ROOT / "plugins" / "saboteur.py"), "with": {"how": "garbage", "rank": 1}}
    peers.load(config, run_dir=str(tmp_path))
    worker = peers.worker()
    peers.attach(worker)
    worker.send("call", seq=1, hook="on_step_end")
    assert worker.socket.poll(SECONDS * 1000)
    assert worker.socket.recv_multipart()[1].startswith(b"\xc1")


def test_without_the_coordinators_environment_it_says_so():
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "plugin-host" / "python")}
    done = subprocess.run([sys.executable, "-m", "bulkhead.host"], env=environment, capture_output=True, text=True,
                          timeout=SECONDS)  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == (
        "bulkhead host: bulkhead.host is started by the coordinator, which sets its environment "
        "('BULKHEAD_GENERATION')\n"
    )
