"""Interrupted, killed and resumed runs end with the weights of an undisturbed one."""

import contextlib
import os
import signal

import pytest

from resumption import assert_same_end, config_of, stop
from runs import table


def stopped_at(runs, config, gate, number, ranks=2):
    """A run that was told to stop at the gate and ended in order."""
    return stop(runs.start(config, ranks), gate, number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_saves_ends_in_order_and_goes_on_with_resume_auto(runs, number):
    gate = runs.gate(step=13)
    config = config_of([gate])
    run = stopped_at(runs, config, gate, number)
    summary = run.summary
    assert (summary["status"], summary["exit_code"]) == ("interrupted", 130)
    assert number.name in summary["reason"]
    assert 14 <= summary["steps"] <= 16 and run.checkpoints()[-1] == f"step-{summary['steps']:08}"
    resumed = runs.finish(config, 2, flags=["--resume", "auto"], run_dir=run.run_dir)
    assert resumed.directory == run.directory
    assert_same_end(resumed, runs.finish(config, 2))
    assert resumed.summary["resumed_from"] == summary["steps"]
    assert [line["step"] for line in resumed.events("resume")] == [summary["steps"]]


def test_again_and_again_in_two_epochs_with_micro_batches(runs):
    gates = [runs.gate(step) for step in (3, 24, 26)]
    changes = {"train": {"accumulate": 2, "max_steps": 33}, "checkpoint": {"every": 0}}
    run_dir, flags = None, []
    for gate in gates:
        run = runs.start(config_of([gate], **changes), 2, flags=flags, run_dir=run_dir)
        stop(run, gate, signal.SIGINT)
        run_dir, flags = run.run_dir, ["--resume", "auto"]
    config = config_of([runs.gate(step=1000)], **changes)
    resumed = runs.finish(config, 2, flags=flags, run_dir=run_dir)
    assert_same_end(resumed, runs.finish(config, 2))


def test_kill_9_of_everything(runs):
    gate = runs.gate(step=17)
    config = config_of([gate])
    run = runs.start(config, 2)
    gate.reached(run)
    for pid, _ in run.alive():
        with contextlib.suppress(ProcessLookupError):  # it went with one that was killed before it
            os.kill(pid, signal.SIGKILL)
    gate.open()
    run.process.wait(10)
    run.wait_nobody()
    assert not (run.directory / "summary.json").exists()
    resumed = runs.finish(config, 2, flags=["--resume", "auto"], run_dir=run.run_dir)
    assert_same_end(resumed, runs.finish(config, 2))
    assert resumed.summary["resumed_from"] == 10


def test_a_second_signal_ends_at_once(runs):
    gate = runs.gate(step=8)
    run = runs.start(config_of([gate]), 2)
    gate.reached(run)
    os.kill(run.process.pid, signal.SIGINT)
    run.wait_event("stop")
    os.kill(run.process.pid, signal.SIGINT)
    run.wait(130)
    assert run.summary["status"] == "interrupted"


def test_ranks_that_do_not_stop_within_the_grace_are_killed(runs):
    gate = runs.gate(step=8)
    run = runs.start(config_of([gate]), 2, flags=["--grace", "300ms"])
    gate.reached(run)
    os.kill(run.process.pid, signal.SIGTERM)
    run.wait(130)
    assert "in time" in run.summary["reason"], run.summary["reason"]


def test_a_signal_during_the_start(runs):
    run = runs.start(config_of([runs.gate(step=1000)]), 2)
    run.wait_for(lambda: run.workers(), "a rank")
    os.kill(run.process.pid, signal.SIGTERM)
    run.wait(130)


def test_resume_from_a_checkpoint_makes_a_new_run(runs):
    config = config_of([runs.gate(step=1000)])
    first = runs.finish(config, 2)
    checkpoint = first.directory / "checkpoints" / "step-00000020"
    second = runs.finish(config, 2, flags=["--resume", str(checkpoint)], run_dir=first.run_dir)
    assert second.directory != first.directory
    assert second.weights == first.weights and second.summary["resumed_from"] == 20
    assert second.steps() == list(range(21, 31))
    third = runs.finish(config, 2, flags=["--resume", "auto"], run_dir=first.run_dir)
    assert third.summary["resumed_from"] == 0, "both runs are finished: auto begins afresh"


def test_resume_none_begins_afresh_beside_an_unfinished_run(runs):
    gate = runs.gate(step=13)
    config = config_of([gate])
    run = stopped_at(runs, config, gate, signal.SIGINT)
    fresh = runs.finish(config, 2, flags=["--resume", "none"], run_dir=run.run_dir)
    assert fresh.directory != run.directory and fresh.summary["resumed_from"] == 0


def test_a_run_that_is_alive_is_not_resumed(runs):
    gate = runs.gate(step=5)
    config = config_of([gate])
    run = runs.start(config, 2)
    gate.reached(run)
    second = runs.start(table(), 2, flags=["--resume", "auto"], run_dir=run.run_dir)
    second.process.wait(30)
    assert second.process.returncode == 2 and len(second.errors.strip().splitlines()) == 1, second.errors
    gate.open()
    run.wait()
