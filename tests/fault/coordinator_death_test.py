"""kill -9 of the coordinator: no process and no socket stays behind."""

import os
import signal

from runs import plugin, table

BOUND = 5.0  # seconds


def plugins(gate):
    return [plugin("wander:Wander"), plugin("saboteur.so", given={"times": 0}), gate.plugin]


def assert_nothing_is_left(run):
    run.process.wait(10)
    run.wait_nobody(BOUND)
    assert list(run.sockets.iterdir()) == [], "the private directory stays behind"


def test_in_the_middle_of_training(runs):
    gate = runs.gate(step=9)
    run = runs.start(table(plugins=plugins(gate)), 2)
    gate.reached(run)
    assert len(run.alive()) >= 9  # 2 ranks, 6 hosts, the coordinator
    os.kill(run.process.pid, signal.SIGKILL)
    assert_nothing_is_left(run)


def test_during_the_start(runs):
    run = runs.start(table(plugins=plugins(runs.gate(step=1000))), 2)
    run.wait_for(lambda: run.workers(), "a rank")
    os.kill(run.process.pid, signal.SIGKILL)
    assert_nothing_is_left(run)


def test_with_a_plugin_that_has_children_and_one_that_is_stopped(runs, tmp_path):
    (tmp_path / "parent.py").write_text(
        "import subprocess\n"
        "from bulkhead import Plugin\n"
        "class Parent(Plugin):\n"
        "    def setup(self, ctx):\n"
        "        subprocess.Popen(['sleep', '1000'])\n"
    )
    gate = runs.gate(step=9)
    entries = [plugin(f"{tmp_path}/parent.py:Parent"), *plugins(gate)]
    run = runs.start(table(plugins=entries), 1)
    gate.reached(run)
    assert "sleep" in [name for _, name in run.alive()]
    os.kill(run.hosts()[1, 0], signal.SIGSTOP)
    os.kill(run.process.pid, signal.SIGKILL)
    assert_nothing_is_left(run)


def test_what_a_plugin_left_running_ends_with_the_run(runs, tmp_path):
    (tmp_path / "parent.py").write_text(
        "import subprocess\n"
        "from bulkhead import Plugin\n"
        "class Parent(Plugin):\n"
        "    def setup(self, ctx):\n"
        "        subprocess.Popen(['sleep', '1000'])\n"
        "        subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
    )
    runs.finish(table(train={"max_steps": 5}, plugins=[plugin(f"{tmp_path}/parent.py:Parent")]))
