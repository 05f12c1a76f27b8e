"""CONFORMANCE 7.3, and Part B 5.4: what plugins keep, over deaths and resumes; averages of weights."""

import numpy as np
import pytest
from actors import EPOCH, actor, calls, digits, hooks
from bulkhead.testing import load, run_hook
from conftest import ROOT
from runs import plugin
from safetensors.numpy import load_file

CARRIED = {"a": 1, "b": 2.0, "c": "x"}
SAVING = {"checkpoint": {"every": EPOCH, "keep": 0}}


def resumed(runs, run, config, ranks, step=EPOCH):
    checkpoint = str(run.directory / "checkpoints" / f"step-{step:08}")
    return runs.finish(config, ranks, flags=["--resume", checkpoint])


def same_types(state):
    return state == CARRIED and [type(value) for value in state.values()] == [int, float, str]


# ----- Helios -----


def test_HelioS_S1_a_state_comes_back_at_a_resume_on_every_rank(runs, place):
    """Helios saves rank 0's and gives it to all; ours keeps each rank's own."""
    language, ranks = place
    config = digits([actor(language)], ranks, **SAVING)
    again = resumed(runs, runs.finish(config, ranks), config, ranks)
    for rank in range(ranks):
        (loaded,) = calls(again, rank=rank, hook="load_state_dict")
        assert same_types(loaded["state"]), loaded
        called = hooks(again, rank=rank)
        assert called.index("setup") < called.index("load_state_dict") < called.index("on_load")
        assert "on_train_start" not in called


def test_HelioS_S1_a_state_comes_back_after_a_death(runs, place):
    language, ranks = place
    config = digits([actor(language, script=[f"die on_step_end 3 {ranks - 1}"])], ranks)
    run = runs.finish(config, ranks)
    states = [line["state"] for line in calls(run, rank=ranks - 1, hook="load_state_dict")]
    assert len(states) == 1 and same_types(states[0])
    assert run.weights == runs.finish(digits([], ranks), ranks).weights


def test_HelioS_S3_a_checkpoint_without_the_plugin_loads_nothing_into_it(runs, place):
    language, ranks = place
    run = runs.finish(digits([actor(language, "old")], ranks, **SAVING), ranks)
    again = resumed(runs, run, digits([actor(language, "old"), actor(language, "new")], ranks, **SAVING), ranks)
    for rank in range(ranks):
        assert "load_state_dict" in hooks(again, "old", rank)
        assert "load_state_dict" not in hooks(again, "new", rank)
        assert "on_load" in hooks(again, "new", rank), "it hears of the resume"
    assert again.summary["resumed_from"] == EPOCH


def test_HelioS_5_5_a_plugin_named_like_a_part_of_a_checkpoint_does_not_overwrite_it(runs):
    names = {"model": "python", "rng": "native", "training_state": "python", "optimizer": "native"}
    config = digits([actor(language, name) for name, language in names.items()], **SAVING)
    run = runs.finish(config)
    again = resumed(runs, run, config, 1)
    for name in names:
        assert same_types(calls(again, name, hook="load_state_dict")[0]["state"])
    assert again.weights == run.weights


def test_M_on_save_comes_when_the_checkpoint_is_complete(runs, ranks):
    """Ours: Megatron's on_save may come before an asynchronous save has completed."""
    run = runs.finish(digits([plugin("looks:Looks")], ranks, **SAVING), ranks)
    for rank in range(ranks):
        seen = (run.directory / f"looks-{rank}").read_text().splitlines()
        assert seen == ["start 5 False", "end 5 True", "start 10 False", "end 10 True"]


# ----- NEON and RepeatTheFirstN -----

def shipped(name, **given):
    return load(str(ROOT / "plugins" / f"{name}.py"), **given)


def weights(value):
    return {"weight": np.full((2, 2), value, np.float32)}


def sum_of(path):
    return sum(float(array.astype(np.float64).sum()) for array in load_file(path).values())


def test_N_S1_neon_goes_as_far_to_the_other_side(tmp_path):
    neon = shipped("neon", alpha=1.0, load=True)
    about = {"run_dir": str(tmp_path)}
    run_hook(neon, "on_train_start", weights=weights(1.0), **about)
    result = run_hook(neon, "on_train_end", weights=weights(1.5), **about)
    for found in (result.weights["weight"], load_file(tmp_path / "neon.safetensors")["weight"]):
        assert np.array_equal(found, np.full((2, 2), 0.5, np.float32))


def test_N_S1_neon_in_a_run(runs, ranks):
    run = runs.finish(digits([plugin("neon"), plugin("sums:Sums")], ranks), ranks)
    numbers = [float(line) for line in (run.directory / "sums-0").read_text().split()]
    base, trained = numbers[0], numbers[-1]
    assert base != trained
    assert sum_of(run.directory / "neon.safetensors") == pytest.approx(2 * base - trained, rel=1e-5)


def test_N_S1_repeat_the_first_n_averages_its_cycles(tmp_path):
    repeat = shipped("repeat_first_n", n_epochs=1)
    about = {"run_dir": str(tmp_path), "max_epochs": 2}
    run_hook(repeat, "on_train_start", weights=weights(0.0), **about)
    for epoch, value in enumerate((1.0, 3.0)):
        run_hook(repeat, "on_epoch_end", weights=weights(value), epoch=epoch, **about)
    average = run_hook(repeat, "on_train_end", weights=weights(3.0), **about).weights["weight"]
    assert np.array_equal(average, np.full((2, 2), 2.0, np.float32))


def test_N_S1_repeat_the_first_n_in_a_run(runs, ranks):
    """Two cycles of an epoch each, from the same weights; the average is what the run ends with."""
    train = {"max_steps": 0, "max_epochs": 2}
    plugins = [plugin("sums:Sums"), plugin("repeat_first_n", given={"n_epochs": 1})]
    run = runs.finish(digits(plugins, ranks, train=train), ranks)
    _, first, second, _ = [float(line) for line in (run.directory / "sums-0").read_text().split()]
    average = run.directory / "repeat_first_n.safetensors"
    assert first != second and sum_of(average) == pytest.approx((first + second) / 2, rel=1e-5)
    (model,) = (run.directory / "checkpoints" / "step-00000010").glob("*model*.safetensors")
    assert sum_of(model) == pytest.approx(sum_of(average), rel=1e-6)


def test_N_S1_epochs_that_are_no_multiple_are_refused(runs):
    config = digits([plugin("repeat_first_n", given={"n_epochs": 2})], train={"max_steps": 0, "max_epochs": 5})
    told = runs.start(config).wait(2).errors.splitlines()[0]  # configure's traceback follows
    for word in ("max_epochs (5)", "multiple", "n_epochs (2)"):
        assert word in told


def test_N_S1_weights_that_are_not_finite_are_an_error(tmp_path):
    repeat = shipped("repeat_first_n", n_epochs=1)
    with pytest.raises(ValueError, match="finite"):
        run_hook(repeat, "on_epoch_end", weights=weights(np.nan), epoch=0, max_epochs=2, run_dir=str(tmp_path))
    assert ValueError in type(repeat).raises, "it ends the run"
