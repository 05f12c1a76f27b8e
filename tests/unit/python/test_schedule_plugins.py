"""Plugins that change settings while training goes on: accumulation, checkpoints, hot settings; and lr_monitor."""

import json
import math

import pytest
from shipped_plugins import assert_refused, make, module_of, restarted

from bulkhead.testing import run_hook

# ----- grad_accum_schedule (CONFORMANCE 7.5, EveryDream2's Accumulator) -----

SHIPPED = {"begin_epoch": 3, "begin_grad_accum": 1, "end_epoch": 10, "end_grad_accum": 100}


def set_at(plugin, epoch, **about):
    return run_hook(plugin, "on_epoch_start", epoch=epoch, **about)


def test_grad_accum_has_everydream2s_numbers():
    plugin = make("grad_accum_schedule", **SHIPPED)
    found = {epoch: set_at(plugin, epoch).control.settings.get("grad_accum") for epoch in range(10)}
    assert found == {0: None, 1: 1, 2: 1, 3: 1, 4: 18, 5: 34, 6: 50, 7: 67, 8: 84, 9: 100}


def test_grad_accum_of_epoch_0_is_part_of_the_configuration():
    plugin = make("grad_accum_schedule", **{**SHIPPED, "begin_grad_accum": 2})
    assert run_hook(plugin, "configure", config={"train": {"accumulate": 1}}).value == {"train.accumulate": 2}
    assert run_hook(plugin, "configure", config={"train": {"accumulate": 2}}).value == {}


def test_grad_accum_rounds_a_half_to_the_even_neighbour():
    linear = module_of(make("grad_accum_schedule", **SHIPPED)).linear
    assert linear(1, 16, 5) == [1, 5, 8, 12, 16]
    assert linear(16, 1, 5) == [16, 12, 8, 5, 1]
    assert linear(3, 9, 1) == [3]


def test_grad_accum_stays_and_says_so_once_behind_the_last_epoch():
    plugin = make("grad_accum_schedule", **SHIPPED)
    results = [set_at(plugin, epoch) for epoch in (9, 10)]
    plugin = restarted(plugin, "grad_accum_schedule", **SHIPPED)
    results.append(set_at(plugin, 11))
    assert [bool(result.control) for result in results] == [True, False, False]
    assert [result.logs for result in results] == [
        [], ["grad_accum_schedule has nothing for epoch 10: grad_accum stays as it is"], [],
    ]  # fmt: skip


def test_grad_accum_is_refused_at_start_with_arguments_that_make_no_sense():
    for given, error, words in (
        ({"curve": "log"}, "NotImplementedError", 'curve must be "linear", not "log"'),
        ({"end_epoch": 3}, "ValueError", r"end_epoch must be greater than begin_epoch \(3\), not 3"),
        ({"begin_epoch": -1}, "ValueError", "begin_epoch must be at least 0"),
        ({"end_grad_accum": 0}, "ValueError", "end_grad_accum must be at least 1, not 0"),
        ({"end_grad_acum": 1}, "", 'did you mean "end_grad_accum"'),
    ):
        assert_refused("grad_accum_schedule", f"{error}.*{words}", **{**SHIPPED, **given})


# ----- lr_monitor -----


def test_lr_monitor_sums_up_each_window():
    plugin = make("lr_monitor", every=3)
    norms, rates = [1.0, 5.0, 3.0, 2.0, 2.0, 2.0], [0.1, 0.3, 0.2, 0.2, 0.1, 0.0]
    found = []
    for step in range(6):
        found.append(run_hook(plugin, "on_step_end", lr=rates[step], grad_norm=norms[step]).metrics)
        if step == 3:
            plugin = restarted(plugin, "lr_monitor", every=3)
    assert found == [
        {}, {}, {"lr_min": 0.1, "lr_max": 0.3, "grad_norm_mean": 3.0, "grad_norm_max": 5.0},
        {}, {}, {"lr_min": 0.0, "lr_max": 0.2, "grad_norm_mean": 2.0, "grad_norm_max": 2.0},
    ]  # fmt: skip


def test_lr_monitor_counts_norms_that_are_not_finite():
    plugin = make("lr_monitor", every=2)
    found = [
        run_hook(plugin, "on_step_end", lr=0.1, grad_norm=norm).metrics
        for norm in (math.nan, 2.0, math.inf, math.nan)
    ]
    assert found[1] == {
        "lr_min": 0.1, "lr_max": 0.1, "grad_norm_mean": 2.0, "grad_norm_max": 2.0, "grad_norm_not_finite": 1,
    }  # fmt: skip
    assert found[3] == {"lr_min": 0.1, "lr_max": 0.1, "grad_norm_not_finite": 2}


def test_lr_monitor_speaks_for_rank_0_only():
    assert run_hook(make("lr_monitor", every=1), "on_step_end", rank=1, lr=0.1, grad_norm=1.0).metrics == {}


# ----- rolling_checkpoint (CONFORMANCE 7.5, EveryDream2's save steps) -----


def test_rolling_checkpoint_saves_at_everydream2s_steps():
    for every, epoch, length, steps in (
        (1, 0, 100, [99]),
        (1, 7, 100, [99]),
        (2, 0, 100, []),
        (2, 1, 100, [99]),
        (0.5, 0, 100, [49, 99]),
        (0.33, 0, 100, [33, 66, 99]),
        (0.001, 0, 3, [0, 1, 2]),
        (0.9, 0, 100, [99]),
        (1, 0, 0, []),
    ):
        plugin = make("rolling_checkpoint", every_n_epochs=every)
        saved = []
        for step in range(length):
            asked = run_hook(plugin, "on_step_start", epoch=epoch, epoch_length=length, step_in_epoch=step).control
            assert not asked.stop
            saved += [step] if asked.save else []
        assert saved == steps == module_of(plugin).save_steps(every, epoch, length)


def test_rolling_checkpoint_can_say_how_many_are_kept():
    assert run_hook(make("rolling_checkpoint", keep=2), "configure", config={}).value == {"checkpoint.keep": 2}
    assert run_hook(make("rolling_checkpoint"), "configure", config={}).value == {}


def test_rolling_checkpoint_refuses_what_makes_no_sense():
    for every in (0, -1, 1.5):
        assert_refused("rolling_checkpoint", "every_n_epochs must be a whole number from 1 on", every_n_epochs=every)
    assert_refused("rolling_checkpoint", "keep must be at least 0, not -1", keep=-1)


# ----- hot_settings -----


@pytest.fixture
def settings(tmp_path):
    """Writes the settings file, and reads it as the plugin does at an epoch's start."""

    def at_epoch(plugin, epoch, text=None, name="settings.yaml", **about):
        if text is not None:
            (tmp_path / name).write_text(text)
        return run_hook(plugin, "on_epoch_start", epoch=epoch, run_dir=str(tmp_path), **about)

    return at_epoch


def test_hot_settings_sets_what_has_changed_since_it_was_read(settings):
    plugin = make("hot_settings")
    assert settings(plugin, 0).control.settings == {}
    assert settings(plugin, 1, "lr: 1e-4\ngrad_accum: 4\n").control.settings == {"lr": 1e-4, "grad_accum": 4}
    assert settings(plugin, 2).control.settings == {}
    plugin = restarted(plugin, "hot_settings")
    result = settings(plugin, 3, "lr: null\ngrad_accum: 4\n")
    assert result.control.settings == {"lr": None}
    assert result.logs == ["hot_settings: lr is None from epoch 3 on"]


def test_hot_settings_reads_json_too(settings):
    plugin = make("hot_settings", file="train.json")
    text = json.dumps({"save_every": 10, "log_every": 2, "validate_every": 5})
    assert settings(plugin, 1, text, "train.json").control.settings == json.loads(text)


def test_hot_settings_says_what_is_wrong_and_goes_on(settings):
    for text, words in (
        ("lr: [", "is no YAML"),
        ("- lr", "must hold a map of settings, not list"),
        ("batch_size: 4", 'there is no setting "batch_size"; there are grad_accum, log_every, lr'),
        ("lr: fast", "lr must be a number, not 'fast'"),
        ("log_every: true", "log_every must be a number, not True"),
        ("grad_accum: 0", "grad_accum must be a whole number of 1 or more, not 0"),
        ("grad_accum: null", "grad_accum must be a number, not None"),
    ):
        plugin = make("hot_settings")
        result = settings(plugin, 1, text)
        assert result.control.settings == {} and len(result.logs) == 1 and words in result.logs[0]
        assert settings(plugin, 2, "lr: 0.5").control.settings == {"lr": 0.5}


def test_hot_settings_refuses_a_bad_file_at_start(tmp_path):
    (tmp_path / "settings.yaml").write_text("speed: 11")
    with pytest.raises(ValueError, match='there is no setting "speed"'):
        run_hook(make("hot_settings"), "setup", run_dir=str(tmp_path))


def test_hot_settings_is_read_by_rank_0_alone(settings):
    assert settings(make("hot_settings"), 1, "lr: 0.5", rank=1).control.settings == {}


def test_hot_settings_sets_after_a_replay_what_the_replay_could_not(settings):
    plugin = make("hot_settings")
    assert settings(plugin, 1, "lr: 0.5", replaying=True).control.settings == {}
    assert settings(plugin, 2).control.settings == {"lr": 0.5}
