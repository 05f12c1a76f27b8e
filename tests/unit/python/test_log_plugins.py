"""Plugins that write down what happens: csv_log, tensorboard and example_logging."""

import os
import subprocess
import sys

import pytest
from shipped_plugins import PLUGINS, make

from bulkhead import hooks, loader
from bulkhead.testing import run_hook

# ----- csv_log -----


@pytest.fixture
def log(tmp_path):
    """Makes a CsvLog that is set up; all of one test write the same file."""

    def set_up(**given):
        plugin = make("csv_log", **given)
        run_hook(plugin, "setup", run_dir=str(tmp_path))
        return plugin

    return set_up


def write_steps(plugin, run_dir, steps, **call):
    for step in steps:
        numbers = {"metrics": {"loss": step / 2, "accuracy": 0.5}, "lr": 0.1, "grad_norm": 2.0}
        run_hook(plugin, "on_step_end", run_dir=str(run_dir), global_step=step, **numbers, **call)


def lines(run_dir):
    return (run_dir / "metrics.csv").read_text().splitlines()


def test_csv_log_writes_one_line_a_step_under_one_header(log, tmp_path):
    write_steps(log(), tmp_path, range(2))
    assert lines(tmp_path) == ["step,epoch,loss,lr,grad_norm,accuracy", "1,0,0.0,0.1,2.0,0.5", "2,0,0.5,0.1,2.0,0.5"]


def test_csv_log_writes_every_nth_line_and_the_first(log, tmp_path):
    write_steps(log(every=3), tmp_path, range(7))
    assert [line.split(",")[0] for line in lines(tmp_path)] == ["step", "1", "3", "6"]


def test_csv_log_writes_no_line_twice_after_a_restart_or_in_a_replay(log, tmp_path):
    write_steps(log(), tmp_path, range(3))
    restarted = log()
    write_steps(restarted, tmp_path, range(3), replaying=True)
    write_steps(restarted, tmp_path, range(2, 5))  # the call that was under way is made again
    assert [line.split(",")[0] for line in lines(tmp_path)] == ["step", "1", "2", "3", "4", "5"]


def test_csv_log_is_cut_back_to_the_checkpoint_on_a_resume(log, tmp_path):
    plugin = log()
    write_steps(plugin, tmp_path, range(6))
    for resumed in (log(), plugin):  # a new host; one that lived on
        run_hook(resumed, "on_load", run_dir=str(tmp_path), global_step=4)
        assert [line.split(",")[0] for line in lines(tmp_path)] == ["step", "1", "2", "3", "4"]
        write_steps(resumed, tmp_path, range(4, 6))
    assert [line.split(",")[0] for line in lines(tmp_path)] == ["step", "1", "2", "3", "4", "5", "6"]


def test_csv_log_begins_anew_with_the_run(log, tmp_path):
    write_steps(log(), tmp_path, range(3))
    plugin = log()
    run_hook(plugin, "on_train_start", run_dir=str(tmp_path))
    write_steps(plugin, tmp_path, range(1))
    assert len(lines(tmp_path)) == 2


def test_csv_log_drops_half_a_line_that_a_crash_left(log, tmp_path):
    write_steps(log(), tmp_path, range(2))
    with open(tmp_path / "metrics.csv", "a") as file:
        file.write("3,0,1")
    write_steps(log(), tmp_path, range(1, 3))
    assert [line.split(",")[0] for line in lines(tmp_path)] == ["step", "1", "2", "3"]


def test_csv_log_writes_on_rank_0_only(tmp_path):
    plugin = make("csv_log")
    for hook in ("setup", "on_train_start", "on_step_end"):
        run_hook(plugin, hook, run_dir=str(tmp_path), rank=1)
    assert os.listdir(tmp_path) == []


# ----- example_logging -----


def test_example_logging_prints_every_hook_and_changes_nothing(capsys):
    plugin, batch = make("example_logging"), {"input_ids": [[1, 2]], "f": [1.0]}
    assert set(loader.adopt(plugin, "rank").hooks) == set(hooks.HOOKS)
    for number, hook in enumerate(hooks.HOOKS, 1):
        result = run_hook(plugin, hook, batch=batch, state={"calls": number - 1}, config={"name": "x"}, global_step=4)
        assert not (result.control or result.changed or result.weights or result.logs)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0].split()[1] for line in printed] == list(hooks.HOOKS)
    assert printed[0] == "1 configure: rank 0, epoch 0, step 0: the run is 'x'"


def test_example_logging_counts_on_after_a_restart(capsys):
    first, second = make("example_logging"), make("example_logging")
    run_hook(first, "on_step_end")
    run_hook(second, "load_state_dict", state=run_hook(first, "state_dict").value)
    run_hook(second, "on_step_end", metrics={"loss": 0.25}, replaying=True)
    assert capsys.readouterr().out.splitlines()[-1] == "3 on_step_end: rank 0, epoch 0, step 0, replayed: loss 0.25"
