"""A rank dies: all ranks go back to the last checkpoint, plugin hosts live on, and nothing is trained twice."""

import os
import signal

import pytest

from resumption import assert_same_end, config_of


def restarted(runs, number, gate, victim, config, ranks=2):
    """A run in which rank `victim` gets signal `number` while it stands at the gate."""
    run = runs.start(config, ranks, flags=["--max-restarts", "1"])
    gate.reached(run)
    hosts = run.hosts()
    os.kill(run.workers()[victim], number)
    run.wait_event("restart", rank=ranks - 1)
    gate.open()
    return run.wait(), hosts


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_the_ranks_go_on_from_the_checkpoint_and_the_hosts_live_on(runs, number):
    gate = runs.gate(step=17)
    config = config_of([gate])
    run, hosts = restarted(runs, number, gate, 1, config)
    reference = runs.finish(config, 2)
    assert_same_end(run, reference)
    summary = run.summary
    assert [rank["restarts"] for rank in summary["ranks"]] == [1, 1]
    assert all(entry["starts"] == 1 and entry["crashes"] == [] for entry in summary["plugins"]), run.account()
    assert len(hosts) == 9
    (crash,) = run.events("crash")
    assert crash["rank"] == 1 and crash["reason"] == number.name


def test_hosts_keep_their_processes(runs):
    gate, later = runs.gate(step=12), runs.gate(step=22)
    run = runs.start(config_of([gate, later]), 2, flags=["--max-restarts", "1"])
    gate.reached(run)
    before, ranks = run.hosts(), run.workers()
    os.kill(ranks[0], signal.SIGKILL)
    run.wait_event("restart", rank=1)
    gate.open()
    later.reached(run)
    assert run.hosts() == before
    assert not set(run.workers().values()) & set(ranks.values())
    later.open()
    run.wait()


def test_before_any_checkpoint_all_begin_anew(runs):
    gate = runs.gate(step=5)
    config = config_of([gate])
    run, _ = restarted(runs, signal.SIGKILL, gate, 0, config)
    assert_same_end(run, runs.finish(config, 2))


def test_in_a_later_epoch_with_micro_batches(runs):
    gate = runs.gate(step=27)
    config = config_of([gate], train={"accumulate": 2, "max_steps": 34}, checkpoint={"every": 8})
    run, _ = restarted(runs, signal.SIGKILL, gate, 0, config)
    assert_same_end(run, runs.finish(config, 2))


def test_a_single_rank(runs):
    gate = runs.gate(step=13)
    config = config_of([gate])
    run, _ = restarted(runs, signal.SIGABRT, gate, 0, config, ranks=1)
    assert_same_end(run, runs.finish(config, 1))


def test_without_restarts_the_run_fails_and_says_why(runs):
    gate = runs.gate(step=12)
    run = runs.start(config_of([gate]), 2)
    gate.reached(run)
    os.kill(run.workers()[1], signal.SIGKILL)
    run.wait(1)
    summary = run.summary
    assert (summary["status"], summary["exit_code"]) == ("failed", 1)
    assert "rank 1" in summary["reason"] and "SIGKILL" in summary["reason"], summary["reason"]
    assert summary["ranks"][1]["exit"] == -signal.SIGKILL


def test_a_rank_that_dies_more_often_than_allowed(runs):
    first, second = runs.gate(step=12), runs.gate(step=14)
    run = runs.start(config_of([first, second]), 2, flags=["--max-restarts", "1"])
    first.reached(run)
    os.kill(run.workers()[0], signal.SIGKILL)
    run.wait_event("restart", rank=1)
    first.open()
    second.reached(run)
    os.kill(run.workers()[1], signal.SIGSEGV)
    run.wait(1)
    assert "rank 1" in run.summary["reason"] and "SIGSEGV" in run.summary["reason"]
    assert [rank["restarts"] for rank in run.summary["ranks"]] == [1, 1]
