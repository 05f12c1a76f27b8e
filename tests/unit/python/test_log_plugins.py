"""Plugins that write down what happens: csv_log, tensorboard and example_logging."""

import importlib.util
import json
import os
import shutil
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
    shown = [hook for hook in hooks.HOOKS if hook not in hooks.EXCLUSIVE]
    assert loader.adopt(plugin, "rank").hooks == shown
    for number, hook in enumerate(shown, 1):
        result = run_hook(plugin, hook, batch=batch, state={"calls": number - 1}, config={"name": "x"}, global_step=4)
        assert not (result.control or result.changed or result.weights or result.logs)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0].split()[1] for line in printed] == shown
    assert printed[0] == "1 configure: rank 0, epoch 0, step 0: the run is 'x'"


def test_example_logging_counts_on_after_a_restart(capsys):
    first, second = make("example_logging"), make("example_logging")
    run_hook(first, "on_step_end")
    run_hook(second, "load_state_dict", state=run_hook(first, "state_dict").value)
    run_hook(second, "on_step_end", metrics={"loss": 0.25}, replaying=True)
    assert capsys.readouterr().out.splitlines()[-1] == "2 on_step_end: rank 0, epoch 0, step 0, replayed: loss 0.25"


# ----- tensorboard: the real package writes, and reads back -----

RUN = """
import json, sys
from bulkhead.testing import load, run_hook
plugins, run_dir, rank = sys.argv[1], sys.argv[2], int(sys.argv[3])
def host():
    plugin = load(plugins + "/tensorboard.py", every=2)
    def call(hook, step, **about):
        result = run_hook(plugin, hook, run_dir=run_dir, rank=rank, global_step=step, **about)
        assert not result.control
    call("setup", 0)
    return call
def steps(call, numbers, loss):
    for step in numbers:
        call("on_step_end", step, metrics={"loss": loss + step}, lr=0.5, grad_norm=2.0)
call = host()
steps(call, range(6), 0.0)
call("on_validate_end", 6, metrics={"loss": 0.25, "accuracy": 0.75})
call = host()  # a resume from step 3
call("on_load", 3)
steps(call, range(3, 6), 100.0)
call("on_train_end", 6)
call("on_test_end", 6, metrics={"loss": 0.125})
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
import importlib.util
import json
import os
import shutil
if os.path.isdir(run_dir + "/tensorboard"):
    seen = EventAccumulator(run_dir + "/tensorboard").Reload()
    print(json.dumps({tag: [[e.step, e.value] for e in seen.Scalars(tag)] for tag in seen.Tags()["scalars"]}))
"""


@pytest.fixture(scope="session")
def with_tensorboard():
    """An interpreter that has the tensorboard package: made once per machine, beside what scripts/setup caches."""
    cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "bulkhead")
    home = os.path.join(cache, f"tensorboard-python{sys.version_info.major}.{sys.version_info.minor}")
    python = os.path.join(home, "bin", "python")
    if not os.path.exists(python):
        part = f"{home}-{os.getpid()}"
        install = [f"{part}/bin/python", "-m", "pip", "install", "-q", "--retries", "0", "--timeout", "15"]
        try:
            os.makedirs(cache, exist_ok=True)
            subprocess.run([sys.executable, "-m", "venv", part], check=True, capture_output=True, timeout=60)
            packages = ["tensorboard", "pyzmq", "msgpack", "numpy"]
            subprocess.run([*install, *packages], check=True, capture_output=True, timeout=180)
            os.rename(part, home)
        except (OSError, subprocess.SubprocessError) as error:
            shutil.rmtree(part, ignore_errors=True)
            if not os.path.exists(python):  # else another test process was faster
                pytest.skip(f"the tensorboard package cannot be installed here: {error}")
    return python


def written_by(python, run_dir, rank):
    """tag → [[step, value], …], as TensorBoard shows it; nothing when there are no event files."""
    packages = str(PLUGINS.parent / "plugin-host" / "python")
    done = subprocess.run(
        [python, "-c", RUN, str(PLUGINS), str(run_dir), str(rank)],
        env={**os.environ, "PYTHONPATH": packages}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout else None


def test_tensorboard_shows_the_curves_without_what_a_resume_trains_again(with_tensorboard, tmp_path):
    assert written_by(with_tensorboard, tmp_path, 0) == {
        "train/loss": [[1, 0.0], [2, 1.0], [4, 103.0], [6, 105.0]],
        "train/lr": [[1, 0.5], [2, 0.5], [4, 0.5], [6, 0.5]],
        "train/grad_norm": [[1, 2.0], [2, 2.0], [4, 2.0], [6, 2.0]],
        "validation/loss": [],
        "validation/accuracy": [],
        "test/loss": [[6, 0.125]],
    }


def test_tensorboard_writes_on_rank_0_only(with_tensorboard, tmp_path):
    assert written_by(with_tensorboard, tmp_path, 1) is None
    assert os.listdir(tmp_path) == []


def test_tensorboard_without_its_package_says_what_to_install():
    found = importlib.util.find_spec("tensorboard")  # once plugins/ is in the search path: the plugin
    if found is not None and found.submodule_search_locations:
        pytest.skip("this environment has the tensorboard package")
    with pytest.raises(loader.Refusal, match="the tensorboard package is not in this plugin's environment"):
        make("tensorboard")
