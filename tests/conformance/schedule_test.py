"""CONFORMANCE 7.5 and 7.9: accumulation schedules, checkpoints at fractions of an epoch, early stopping."""

import sys

import pytest
from actors import EPOCH, actor, calls, digits, steps_of
from bulkhead.testing import load, run_hook
from conftest import ROOT
from registration_test import refused
from runs import plugin

SHIPPED = {"begin_epoch": 3, "begin_grad_accum": 1, "end_epoch": 10, "end_grad_accum": 100}
NUMBERS = [1, 1, 1, 1, 18, 34, 50, 67, 84, 100]


def shipped(name, **given):
    return load(str(ROOT / "plugins" / f"{name}.py"), **given)


def module_of(name, **given):
    return sys.modules[type(shipped(name, **given)).__module__]


# ----- Accumulator -----


@pytest.mark.parametrize("ranks", [1, 2])
def test_E_accumulator_has_everydream2s_numbers_in_a_run(runs, ranks):
    """110 micro-batches an epoch; epochs from 10 on keep what epoch 9 had, and that is said once."""
    plugins = [plugin("grad_accum_schedule", given=SHIPPED), actor("native")]
    data = {"batch_size": 9 // ranks, "validation_fraction": 0.4, "test_fraction": 0.1}
    train = {"max_steps": 0, "max_epochs": 12, "log_every": 1000, "validate_every": 1000}
    run = runs.finish(digits(plugins, ranks, data=data, train=train), ranks)
    for rank in range(ranks):
        found = [set() for _ in range(12)]
        counts = {}
        for line in calls(run, rank=rank, hook="on_backward_end"):
            counts[line["epoch"], line["global_step"]] = counts.get((line["epoch"], line["global_step"]), 0) + 1
        for (epoch, _), count in counts.items():
            found[epoch].add(count)
        assert found == [{number} for number in [*NUMBERS, 100, 100]]
    log = "".join(path.read_text() for path in (run.directory / "logs").glob("*.log"))
    assert log.count("grad_accum_schedule has nothing for epoch 10") == 1


def test_E_accumulator_never_sets_epoch_0():
    told = [run_hook(shipped("grad_accum_schedule", **SHIPPED), "on_epoch_start", epoch=epoch).control.settings
            for epoch in range(11)]  # fmt: skip
    assert told == [{}, *({"grad_accum": number} for number in NUMBERS[1:]), {}]


def test_E_accumulator_from_1_to_16_in_five_epochs():
    """A half is rounded to the even neighbour; the text of the original's pull request says 4."""
    linear = module_of("grad_accum_schedule", end_epoch=5, end_grad_accum=16).linear
    assert linear(1, 16, 5) == [1, 5, 8, 12, 16]


def test_E_accumulator_knows_one_curve(runs):
    config = digits([plugin("grad_accum_schedule", given={**SHIPPED, "curve": "exponential"})])
    refused(runs, config, "NotImplementedError", "linear", "exponential")


def test_E_accumulator_another_argument_is_an_error(runs, language):
    """EveryDream2's arg_update_callback takes grad_accum alone; ours what may be set, and says what that is."""
    names = ["batch_size", "seed", "grad_acum"]
    script = [f"set on_step_end {step} 0 {name}=4" for step, name in enumerate(names)]
    run = runs.finish(digits([actor(language, script=script)]))
    for name, error in zip(names, run.events("error")):
        for word in (name, "grad_accum", "log_every", "lr", "save_every", "validate_every"):
            assert word in error["reason"]
    assert run.summary["status"] == "completed" and run.of_plugin("actor")["errors"] == 3


def test_E_accumulator_grad_accum_can_be_set_from_both_languages(runs, place):
    language, ranks = place
    script = [f"set on_epoch_start 5 {ranks - 1} grad_accum=2"]
    run = runs.finish(digits([actor(language, script=script)], ranks, train={"max_steps": 7}), ranks)
    for rank in range(ranks):
        assert steps_of(run, "on_backward_end", rank=rank) == [0, 1, 2, 3, 4, 5, 5, 6, 6]


# ----- Save steps -----


def test_E_save_steps_of_an_epoch():
    save_steps = module_of("rolling_checkpoint").save_steps
    found = [save_steps(every, epoch, 100) for every, epoch in ((1, 0), (1, 3), (2, 0), (2, 1), (0.5, 0), (0.33, 0))]
    assert found == [[99], [99], [], [99], [49, 99], [33, 66, 99]]


@pytest.mark.parametrize("every, steps", [(1, [5, 10, 15, 20]), (2, [10, 20]), (0.5, [3, 5, 8, 10, 13, 15, 18, 20])])
def test_E_save_steps_in_a_run(runs, every, steps):
    """Saved at the end of the very step: ours counts completed steps."""
    entries = [plugin("rolling_checkpoint", given={"every_n_epochs": every, "keep": 0}), actor("native")]
    run = runs.finish(digits(entries, 2, train={"max_steps": 4 * EPOCH}), 2)
    assert run.checkpoints() == [f"step-{step:08}" for step in steps]
    for rank in range(2):
        assert sorted(set(steps_of(run, "on_save_end", rank=rank))) == steps


# ----- 7.9: early stopping -----


def test_S_early_stop_at_the_fifth_save():
    stop = shipped("early_stop", patience=3, when="save", metric="accuracy", greater=True)
    stopped = []
    for best in (0.5, 0.6, 0.6, 0.6, 0.6):
        run_hook(stop, "on_validate_end", metrics={"accuracy": best})
        stopped.append(run_hook(stop, "on_save_end").control.stop)
    assert stopped == [False, False, False, False, True]


def test_S_early_stop_needs_a_strict_improvement_in_a_run(runs, ranks):
    """A rate too small to change a weight: the first save is the best, the fourth the third that is no better."""
    early = plugin("early_stop", given={"patience": 3, "when": "save"})
    changes = {"train": {"max_steps": 40, "validate_every": 2}, "checkpoint": {"every": 2, "keep": 0}}
    optimizer = {"lr": 1e-30, "weight_decay": 0}
    run = runs.finish(digits([early, actor("native")], ranks, optimizer=optimizer, **changes), ranks)
    assert (run.summary["status"], run.summary["steps"]) == ("stopped", 8)
    assert "no better loss in 3 saves" in run.summary["reason"]
    for rank in range(ranks):
        assert steps_of(run, "on_step_end", rank=rank) == [*range(8)]


def test_S_early_stop_without_its_metric_never_stops(runs):
    early = plugin("early_stop", given={"patience": 1, "metric": "bleu"})
    run = runs.finish(digits([early], train={"validate_every": 1}))
    assert (run.summary["status"], run.summary["steps"]) == ("completed", 2 * EPOCH)
