"""Plugins that do what no plugin should: the host gives one clear answer each, and lives on where it can."""

import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from fake_peers import SECONDS, Peers

from bulkhead import Plugin
from bulkhead.testing import run_hook

BATCH = {"x": np.float32([1, 2]), "y": np.int64([3])}


def failure_of(hook, do, **inputs):
    """What the host answers when `hook` does `do`."""
    plugin = type("P", (Plugin,), {hook: do})()
    result = run_hook(plugin, hook, raise_errors=False, **inputs)
    assert result.batch == {} and not result.control
    return result.failure


def test_recursion_for_ever_is_a_failure_with_a_readable_traceback():
    def down(self, ctx):
        down(self, ctx)

    failure = failure_of("on_step_end", down)
    assert failure["type"] == "RecursionError" and "maximum recursion depth" in failure["message"]
    assert "in down" in failure["traceback"] and len(failure["traceback"]) < 64 << 10
    assert "more times]" in failure["traceback"]  # a thousand equal lines are one


def test_running_out_of_memory_is_a_failure():
    failure = failure_of("on_step_end", lambda self, ctx: np.ones(1 << 50))
    assert failure["type"].endswith("MemoryError")


@pytest.mark.parametrize(
    "do, kind",
    [
        (lambda self, batch, ctx: batch["x"].__setitem__(0, 5), "ValueError"),
        (lambda self, batch, ctx: batch["x"].sort(), "ValueError"),
        (lambda self, batch, ctx: ctx.metrics.__setitem__("loss", 5) or batch["z"], "KeyError"),
        (lambda self, batch, ctx: batch.__setitem__("x", object()), "TypeError"),
        (lambda self, batch, ctx: batch.__setitem__("x", [[1], [1, 2]]), "ValueError"),
        (lambda self, batch, ctx: object(), "TypeError"),
        (lambda self, batch, ctx: {"x": "text"}, "TypeError"),
        (lambda self, batch, ctx: {3: [1.0]}, "TypeError"),
    ],
)
def test_a_transform_that_gives_nonsense_fails_and_damages_nothing(do, kind):
    before = {name: array.copy() for name, array in BATCH.items()}
    assert failure_of("transform_train_batch", do, batch=BATCH)["type"] == kind
    assert all(np.array_equal(BATCH[name], before[name]) for name in BATCH)


def test_what_a_plugin_does_to_its_facts_reaches_no_later_call():
    class P(Plugin):
        def on_step_end(self, ctx):
            ctx.metrics["loss"] = 99.0
            ctx.metrics.clear()

    metrics = {"loss": 1.0}
    plugin = P()
    for _ in range(2):
        assert run_hook(plugin, "on_step_end", metrics=metrics).failure is None
    assert metrics == {"loss": 1.0}


@pytest.mark.parametrize("value", [object(), lambda: 1, {"a": open}, [1, {2: object()}]])
def test_a_state_that_cannot_be_carried_is_a_failure(value):
    failure = failure_of("state_dict", lambda self: value)
    assert failure["type"] == "TypeError" and "cannot be carried without pickle" in failure["message"]


def test_a_state_that_holds_itself_is_a_failure():
    knot = []
    knot.append(knot)
    assert "refers to itself" in failure_of("state_dict", lambda self: knot)["message"]


@pytest.mark.parametrize(
    "do",
    [
        lambda self, ctx: ctx.log_metrics({"a": object()}),
        lambda self, ctx: ctx.progress({"a": object()}),
        lambda self, ctx: ctx.control.stop(Unprintable()),
        lambda self, ctx: ctx.log(Unprintable()),
    ],
)
def test_what_cannot_be_said_is_a_failure(do):
    assert failure_of("on_step_end", do)["type"] in ("TypeError", "RuntimeError")


class Unprintable:
    def __str__(self):
        raise RuntimeError("no words")


def test_a_very_long_log_line_is_cut():
    class P(Plugin):
        def on_step_end(self, ctx):
            ctx.log("x" * (64 << 20))
            ctx.control.stop("y" * (1 << 20))

    result = run_hook(P(), "on_step_end")
    assert len(result.logs[0]) <= 1 << 18 and len(result.control.reason) <= 4096 and result.failure is None


# ----- As a process -----

PROCESS = """
import os, sys
from bulkhead import Plugin
class P(Plugin):
    def on_step_end(self, ctx):
        if ctx.global_step == 0:
            for _ in range(1024): print("x" * (1 << 20))
        elif ctx.global_step == 1:
            def down(n): return down(n + 1) + 1
            down(0)
        elif ctx.global_step == 2: sys.exit("a text")
        elif ctx.global_step == 3: print("last words \\udcff", end=""); print(); os._exit(7)
        else: ctx.log("alive")
"""


@pytest.fixture
def peers():
    peers = Peers()
    yield peers
    peers.close()


@pytest.fixture
def host(peers, plugin_file):
    """Starts a host that writes to `out`; it has been attached to the worker that comes with it."""
    children = []

    def start(out):
        environment = {**os.environ, **peers.environment, "PYTHONPATH": str(ROOT / "plugin-host" / "python")}
        command = [sys.executable, "-m", "bulkhead.host"]
        children.append(subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.DEVNULL))
        peers.load(plugin_file(PROCESS))
        worker = peers.worker()
        peers.attach(worker)
        return children[-1], worker

    yield start
    for child in children:
        child.kill()
        child.wait()


def step(worker, number):
    worker.send("call", seq=number + 1, hook="on_step_end", context={"global_step": number})


def test_gigabytes_of_print_go_where_the_coordinator_lets_them_and_the_call_is_answered(peers, host):
    with open(os.devnull, "w") as nowhere:
        child, worker = host(nowhere)
        step(worker, 0)
        assert worker.receive("reply")[0]["failure"] is None
        peers.control.send("stop")
        assert child.wait(SECONDS) == 0


def test_a_full_disk_under_the_log_is_one_failure_and_no_death(peers, host):
    with open("/dev/full", "w") as full:
        child, worker = host(full)
        step(worker, 0)
        failure = worker.receive("reply")[0]["failure"]
        assert failure["type"] == "OSError" and "No space left" in failure["message"]
        step(worker, 9)
        assert worker.receive("note")[0]["text"] == "alive"
        worker.receive("reply")
        peers.control.send("stop")
        assert child.wait(SECONDS) == 0


def test_recursion_in_a_process_is_an_answer_and_the_process_lives(peers, host, tmp_path):
    child, worker = host(subprocess.DEVNULL)
    step(worker, 1)
    assert worker.receive("reply")[0]["failure"]["type"] == "RecursionError"
    step(worker, 9)
    assert worker.receive("note")[0]["text"] == "alive"
    peers.control.send("stop")
    assert child.wait(SECONDS) == 0


def test_sys_exit_ends_the_process_with_pythons_own_status(peers, host):
    child, worker = host(subprocess.DEVNULL)
    step(worker, 2)
    assert child.wait(SECONDS) == 1


def test_what_was_printed_before_a_sudden_end_is_in_the_log(peers, host, tmp_path):
    with open(tmp_path / "log", "w") as log:
        child, worker = host(log)
        step(worker, 3)
        assert child.wait(SECONDS) == 7
    assert (tmp_path / "log").read_text() == "last words \\udcff\n"
