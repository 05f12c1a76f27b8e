"""A hook that waits for an answer: the host hears everything else meanwhile."""

import os
import threading

import msgpack
import numpy as np
import pytest
from fake_peers import SECONDS, Peers

from bulkhead import host, link, state

ASKING = """
from bulkhead import Plugin
class P(Plugin):
    def __init__(self): self.got = []
    def on_step_end(self, ctx):
        if ctx.global_step == 7:
            try:
                ctx.all_gather("never answered")
            except BaseException:
                self.got.append("swallowed")
        elif ctx.global_step == 9:
            ctx.log(str(self.got))
        else:
            self.got.append(ctx.all_gather(ctx.global_step))
            ctx.log(str(self.got))
    def on_epoch_end(self, ctx):
        weights = ctx.weights()
        ctx.load_weights({name: array * 2 for name, array in weights.items()})
        ctx.set("grad_accum", 3)
    def configure(self, config, ctx):
        return {"train.seed": config["train"]["seed"] + 1} if config else [1]
"""


@pytest.fixture
def peers():
    peers = Peers()
    yield peers
    peers.close()


@pytest.fixture
def running(peers):
    """A Host in a thread of its own; end() gives its exit status or what it raised."""

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


@pytest.fixture
def worker(peers, running, plugin_file):
    peers.load(plugin_file(ASKING))
    worker = peers.worker()
    peers.attach(worker)
    return worker


def answer(worker, seq, number, *parts, **fields):
    packed = [state.pack(part) for part in parts]
    batch = [{"name": str(rank), "dtype": "uint8", "shape": [len(data)]} for rank, data in enumerate(packed)]
    worker.send("answer", *packed, seq=seq, number=number, batch=batch, **fields)


def asked(worker, seq, **context):
    worker.send("call", seq=seq, hook="on_step_end", context=context)
    ask, frames = worker.receive("ask")
    return ask, b"".join(frames)


def test_a_question_is_asked_and_answered_inside_its_call(peers, running, worker):
    ask, data = asked(worker, 1, global_step=5)
    assert ask == {"type": "ask", "generation": 4, "seq": 1, "number": 0, "what": "all_gather",
                   "batch": [{"name": "value", "dtype": "uint8", "shape": [len(data)]}]}  # fmt: skip
    assert state.unpack(data) == 5
    answer(worker, 1, 0, "zero", 5)
    assert worker.receive("note")[0]["text"] == "[['zero', 5]]"
    assert worker.receive("reply")[0]["failure"] is None
    peers.control.send("stop")
    assert running.end() == 0


def test_calls_that_come_meanwhile_wait_in_line(peers, running, worker):
    asked(worker, 1, global_step=5)
    for seq in (2, 3):
        worker.send("call", seq=seq, hook="on_step_end", context={"global_step": 9})
    answer(worker, 1, 0, 1, 2)
    texts = [worker.receive("note", "reply")[0] for _ in range(6)]
    assert [message["seq"] for message in texts] == [1, 1, 2, 2, 3, 3]
    peers.control.send("stop")
    assert running.end() == 0


def test_an_answer_to_another_question_is_not_taken(peers, running, worker):
    asked(worker, 3, global_step=5)
    answer(worker, 2, 0, "old", "old")
    answer(worker, 3, 1, "later", "later")
    answer(worker, 3, 0, "mine", "right")
    assert worker.receive("note")[0]["text"] == "[['mine', 'right']]"
    peers.control.send("stop")
    assert running.end() == 0


def test_a_failure_in_the_answer_is_raised_where_the_plugin_asked(peers, running, worker):
    asked(worker, 1, global_step=5)
    worker.send("answer", seq=1, number=0, failure={"type": "LookupError", "message": "rank 1 did not ask"})
    failure = worker.receive("reply")[0]["failure"]
    assert (failure["type"], failure["message"]) == ("bulkhead.asking.AskFailed", "rank 1 did not ask")
    assert "in on_step_end" in failure["traceback"]
    peers.control.send("stop")
    assert running.end() == 0


def test_weights_are_asked_for_and_given_back_with_settings(peers, running, worker):
    worker.send("call", seq=1, hook="on_epoch_end")
    assert worker.receive("ask")[0]["what"] == "weights"
    arrays = {"a": np.float32([[1, 2]]), "b": np.float32([3])}
    batch = [{"name": name, "dtype": "float32", "shape": list(array.shape)} for name, array in arrays.items()]
    worker.send("answer", *(array.tobytes() for array in arrays.values()), seq=1, number=0, batch=batch)
    reply, frames = worker.receive("reply")
    assert reply["batch"] == batch and [np.frombuffer(frame, np.float32).tolist() for frame in frames] == [[2, 4], [6]]
    assert reply["control"]["settings"] == [{"name": "grad_accum", "value": 3.0, "plugin": 0, "rank": 0}]
    peers.control.send("stop")
    assert running.end() == 0


def test_heartbeats_go_on_while_it_waits(peers, running, worker):
    asked(worker, 1, global_step=5)
    for _ in range(2):
        peers.control.receive("heartbeat")
    answer(worker, 1, 0, 1, 2)
    worker.receive("note")
    peers.control.send("stop")
    assert running.end() == 0


@pytest.mark.parametrize("step", [5, 7])  # at step 7 the plugin swallows every exception
def test_a_stop_ends_a_host_that_waits(peers, running, worker, step):
    asked(worker, 1, global_step=step)
    peers.control.send("stop")
    assert running.end() == 0


@pytest.mark.parametrize("step", [5, 7])
def test_a_new_worker_ends_the_call_that_waits_and_gets_no_reply_to_it(peers, running, worker, step):
    asked(worker, 1, global_step=step)
    worker.send("call", seq=2, hook="on_step_end", context={"global_step": 9})  # of the dead worker: never run
    second = peers.worker(10)
    peers.attach(second)
    second.send("call", seq=5, hook="on_step_end", context={"global_step": 9})
    note, _ = second.receive("note", "reply")
    assert (note["seq"], note["text"]) == (5, "['swallowed']" if step == 7 else "[]")
    assert second.receive("note", "reply")[0]["seq"] == 5
    peers.control.send("stop")
    assert running.end() == 0


@pytest.mark.parametrize("step", [5, 7])
def test_garbage_while_it_waits_ends_the_host(peers, running, worker, step):
    asked(worker, 1, global_step=step)
    worker.socket.send_multipart([worker.client, b"\xc1"])
    assert isinstance(running.end(), host.Malformed)


def test_a_parent_that_has_gone_ends_a_host_that_waits(peers, running, worker, monkeypatch):
    asked(worker, 1, global_step=5)
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert running.end() == 0


def test_configure_is_answered_on_the_control_connection(peers, running, plugin_file):
    peers.load(plugin_file(ASKING))
    peers.control.send("configure", config={"train": {"seed": 4}})
    assert peers.control.receive("configured")[0] == {
        "type": "configured", "generation": 4, "changes": {"train.seed": 5}, "failure": None}  # fmt: skip
    peers.control.send("configure", config={})
    configured, _ = peers.control.receive("configured")
    assert configured["failure"]["message"].startswith("configure returned a list")
    assert msgpack.packb(configured)
    peers.control.send("stop")
    assert running.end() == 0
