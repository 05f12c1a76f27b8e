"""Plugins over parameters: neon, repeat_first_n, ema and swa, against a run whose weights are known."""

import json
import math
import os

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file
from shipped_plugins import assert_refused, make, restarted

from bulkhead.testing import run_hook


def weights(value):
    """Parameters that are all `value`."""
    return {"layer.weight": np.full((2, 3), value, np.float32), "layer.bias": np.full(3, value, np.float32)}


class Run:
    """A run of one plugin: calls hooks, and does with the weights and the learning rate what it asks."""

    def __init__(self, plugin, run_dir, start=1.0, rank=0, max_epochs=0, fresh=True):
        self.plugin, self.run_dir, self.rank, self.max_epochs = plugin, str(run_dir), rank, max_epochs
        self.weights, self.step, self.epoch, self.lr, self.logs = weights(start), 0, 0, None, []
        self.call("on_train_start" if fresh else "on_load")

    def call(self, hook, **about):
        about = {"global_step": self.step, "epoch": self.epoch, "max_epochs": self.max_epochs, **about}
        result = run_hook(self.plugin, hook, weights=self.weights, run_dir=self.run_dir, rank=self.rank, **about)
        self.weights = {**self.weights, **result.weights}
        self.lr = result.control.settings.get("lr", self.lr)
        self.logs += result.logs
        return result

    def train_step(self, value, lr=0.1):
        """An optimizer step that leaves all parameters at `value`; its rate is `lr`, or what the plugin has set."""
        used = lr if self.lr is None else self.lr
        self.call("on_step_start")
        self.weights = weights(value)
        self.call("on_step_end", lr=used)
        self.step += 1
        return used

    def end_epoch(self, value=None):
        if value is not None:
            self.weights = weights(value)
        self.call("on_epoch_end")
        self.epoch += 1

    def end(self):
        self.call("on_train_end")
        self.call("on_save_end")

    def value(self):
        """What all parameters are."""
        (value,) = {float(number) for array in self.weights.values() for number in array.flat}
        return value

    def file(self, name):
        return load_file(os.path.join(self.run_dir, name))


def same(found, value):
    expected = weights(value)
    return found.keys() == expected.keys() and all(
        found[name].dtype == np.float32 and np.array_equal(found[name], expected[name]) for name in expected
    )


# ----- neon (N-S1) -----


def test_neon_goes_from_the_trained_weights_to_the_other_side_of_the_base(tmp_path):
    run = Run(make("neon"), tmp_path, start=1.0)
    run.weights = weights(1.5)
    run.end()
    assert same(run.file("neon.safetensors"), 0.5)
    assert run.value() == 1.5  # not loaded


def test_neon_can_load_its_result_and_go_as_far_as_told(tmp_path):
    run = Run(make("neon", alpha=0.5, load=True, path="out/n.safetensors"), tmp_path, start=1.0)
    run.weights = weights(2.0)
    run.end()
    assert run.value() == 0.5 and same(run.file("out/n.safetensors"), 0.5)
    with safe_open(tmp_path / "out" / "n.safetensors", "numpy") as file:
        assert json.loads(file.metadata()["bulkhead"]) == {"plugin": "neon", "alpha": 0.5}


def test_neon_keeps_its_base_over_a_restart(tmp_path):
    run = Run(make("neon"), tmp_path, start=1.0)
    run.plugin = restarted(run.plugin, "neon")
    run.weights = weights(1.5)
    run.end()
    assert same(run.file("neon.safetensors"), 0.5)


def test_neon_that_comes_with_a_resume_starts_from_there_and_else_does_not(tmp_path):
    late = Run(make("neon"), tmp_path, start=1.0, fresh=False)
    late.weights = weights(1.5)
    late.end()
    assert same(late.file("neon.safetensors"), 0.5)
    run = Run(make("neon"), tmp_path, start=1.0)
    run.weights = weights(1.25)
    run.plugin = restarted(run.plugin, "neon")
    run.call("on_load")
    run.weights = weights(1.5)
    run.end()
    assert same(run.file("neon.safetensors"), 0.5)


# ----- repeat_first_n -----


def test_repeat_first_n_averages_its_cycles(tmp_path):
    run = Run(make("repeat_first_n", n_epochs=1), tmp_path, start=5.0, max_epochs=2)
    run.end_epoch(1.0)
    assert run.value() == 5.0  # the second cycle begins where the first did
    run.end_epoch(3.0)
    assert run.value() == 3.0
    run.end()
    assert run.value() == 2.0 and same(run.file("repeat_first_n.safetensors"), 2.0)


def test_repeat_first_n_goes_back_after_n_epochs_only(tmp_path):
    run = Run(make("repeat_first_n", n_epochs=2), tmp_path, start=5.0, max_epochs=4)
    values = []
    for value in (1.0, 2.0, 3.0, 4.0):
        run.end_epoch(value)
        values.append(run.value())
        run.plugin = restarted(run.plugin, "repeat_first_n", n_epochs=2)
    assert values == [1.0, 5.0, 3.0, 4.0]
    run.end()
    assert run.value() == 3.0  # of 2 and 4


def test_repeat_first_n_gives_every_cycle_the_rates_of_the_first(tmp_path):
    run = Run(make("repeat_first_n", n_epochs=1), tmp_path, max_epochs=3)
    schedule = iter([0.0, 0.1, 0.2, 0.15, 0.1, 0.05, 0.0, 0.0, 0.0])
    used = []
    for _ in range(3):
        used.append([run.train_step(1.0, lr=next(schedule)) for _ in range(3)])
        run.end_epoch()
    assert used == [[0.0, 0.1, 0.2]] * 3


def test_repeat_first_n_refuses_a_run_that_does_not_divide():
    for config, words in (
        ({"train": {"max_epochs": 5}}, r"train.max_epochs \(5\) must be a multiple of n_epochs \(2\)"),
        ({"train": {"max_steps": 100, "max_epochs": 0}}, "needs train.max_epochs"),
        ({}, "needs train.max_epochs"),
    ):
        with pytest.raises(ValueError, match=words):
            run_hook(make("repeat_first_n", n_epochs=2), "configure", config=config)
    assert not run_hook(make("repeat_first_n", n_epochs=2), "configure", config={"train": {"max_epochs": 4}}).value


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_repeat_first_n_ends_a_run_whose_weights_are_not_finite(tmp_path, bad):
    run = Run(make("repeat_first_n", n_epochs=1), tmp_path, max_epochs=2)
    run.weights["layer.bias"] = np.float32([1, bad, 1])
    result = run.call("on_epoch_end", raise_errors=False)
    assert result.failure["type"] == "ValueError" and result.fatal
    assert result.failure["message"] == 'repeat_first_n: "layer.bias" is not finite at the end of cycle 0'


def test_repeat_first_n_that_comes_with_a_resume_ends_the_run(tmp_path):
    result = run_hook(make("repeat_first_n", n_epochs=1), "on_load", raise_errors=False)
    assert result.fatal and "was not there when training began" in result.failure["message"]


def test_repeat_first_n_that_ends_within_its_first_cycle_leaves_the_weights(tmp_path):
    run = Run(make("repeat_first_n", n_epochs=2), tmp_path, start=5.0, max_epochs=2)
    run.end_epoch(1.0)
    run.end()
    assert run.value() == 1.0 and os.listdir(tmp_path) == [] and "nothing to average" in run.logs[0]


# ----- ema -----


def expected_ema(values, decay, every, start):
    average = np.float32(start)
    for step, value in enumerate(values, 1):
        if step % every == 0:
            average = average + np.float32(1 - decay**every) * (np.float32(value) - average)
    return average


@pytest.mark.parametrize("decay, every", [(0.5, 1), (0.9, 2), (0.0, 1), (0.999, 3)])
def test_ema_moves_towards_the_weights(tmp_path, decay, every):
    values = [2.0, 4.0, -1.0, 3.5, 8.0, 0.25]
    run = Run(make("ema", decay=decay, every=every), tmp_path, start=1.0)
    for value in values:
        run.train_step(value)
        run.plugin = restarted(run.plugin, "ema", decay=decay, every=every)
    run.end()
    assert same(run.file("ema.safetensors"), expected_ema(values, decay, every, 1.0))
    assert run.value() == values[-1]


def test_ema_asks_for_weights_at_its_own_steps_only(tmp_path):
    plugin = make("ema", every=3)
    run_hook(plugin, "on_step_end", global_step=1)
    with pytest.raises(RuntimeError, match="asked for weights"):
        run_hook(plugin, "on_step_end", global_step=2)


def test_ema_is_written_with_every_checkpoint_and_can_become_the_model(tmp_path):
    run = Run(make("ema", decay=0.5, every=1, load=True), tmp_path, start=0.0)
    run.train_step(2.0)
    run.call("on_save_end")
    assert same(run.file("ema.safetensors"), 1.0)
    run.train_step(3.0)
    run.end()
    assert run.value() == 2.0 and same(run.file("ema.safetensors"), 2.0)
    with safe_open(tmp_path / "ema.safetensors", "numpy") as file:
        assert json.loads(file.metadata()["bulkhead"])["step"] == 2


def test_ema_begins_with_the_weights_that_it_finds_when_it_comes_late(tmp_path):
    plugin = make("ema", decay=0.5, every=1)
    run_hook(plugin, "on_step_end", weights=weights(4.0), global_step=10)
    run_hook(plugin, "on_save_end", run_dir=str(tmp_path))
    assert same(load_file(tmp_path / "ema.safetensors"), 4.0)


# ----- swa -----


def test_swa_averages_the_ends_of_the_last_epochs(tmp_path):
    run = Run(make("swa", start_epoch=2, every=2), tmp_path)
    for value in (100.0, 100.0, 1.0, 100.0, 4.0, 100.0, 10.0):
        run.end_epoch(value)
        run.plugin = restarted(run.plugin, "swa", start_epoch=2, every=2)
    run.end()
    assert same(run.file("swa.safetensors"), 5.0) and run.value() == 10.0


def test_swa_averages_steps(tmp_path):
    run = Run(make("swa", start_step=2, every=3, load=True), tmp_path)
    for value in (9.0, 1.0, 9.0, 9.0, 3.0, 9.0):  # after 2 and 5 steps
        run.train_step(value)
    run.end_epoch()
    run.end()
    assert run.value() == 2.0 and same(run.file("swa.safetensors"), 2.0)


def test_swa_that_never_begins_says_so(tmp_path):
    run = Run(make("swa", start_epoch=9), tmp_path)
    run.end_epoch(3.0)
    run.end()
    assert os.listdir(tmp_path) == []
    assert run.logs == ["swa: training ended before its start, so there is nothing to average"]


# ----- All of them -----

EACH = [
    ("neon", {}), ("neon", {"load": True}), ("repeat_first_n", {"n_epochs": 1}),
    ("ema", {"every": 1, "load": True}), ("swa", {"start_epoch": 0, "load": True}),
]  # fmt: skip


@pytest.mark.parametrize("name, given", EACH)
def test_one_rank_alone_holds_weights_and_writes(tmp_path, name, given):
    run = Run(make(name, **given), tmp_path, rank=1, max_epochs=1)
    run.train_step(2.0)
    run.end_epoch()
    run.end()
    assert os.listdir(tmp_path) == [] and run.value() == 2.0
    state = run_hook(run.plugin, "state_dict").value
    assert not any(isinstance(value, dict) and value for value in state.values())


@pytest.mark.parametrize("name, given", EACH)
def test_a_file_is_whole_or_not_there(tmp_path, monkeypatch, name, given):
    run = Run(make(name, **given), tmp_path, max_epochs=1)
    run.train_step(2.0)
    run.end_epoch()
    file = tmp_path / f"{name}.safetensors"
    file.write_bytes(b"the one before")
    monkeypatch.setattr(os, "fsync", _full_disk)
    with pytest.raises(OSError, match="disk is full"):
        run.end()
    assert file.read_bytes() == b"the one before" and os.listdir(tmp_path) == [file.name]


def _full_disk(descriptor):
    raise OSError("the disk is full")


def test_weight_plugins_refuse_what_makes_no_sense():
    for name, given, words in (
        ("neon", {"alpha": 0}, "alpha must be greater than 0"),
        ("neon", {"path": "/tmp/x"}, "path must name a file within the run's directory"),
        ("neon", {"path": "../x"}, "path must name a file within the run's directory"),
        ("swa", {"path": "", "start_step": 1}, "path must name a file within the run's directory"),
        ("repeat_first_n", {"n_epochs": 0}, "n_epochs must be at least 1"),
        ("ema", {"decay": 1}, "decay must be at least 0 and below 1"),
        ("ema", {"every": 0}, "every must be at least 1"),
        ("swa", {}, "one of start_epoch and start_step"),
        ("swa", {"start_epoch": 1, "start_step": 1}, "one of start_epoch and start_step"),
        ("swa", {"start_step": 0}, "start_step must be at least 1"),
    ):
        assert_refused(name, words, **given)
