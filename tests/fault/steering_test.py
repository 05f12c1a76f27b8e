"""ctx.set, ctx.weights, ctx.load_weights, `raises`, SIGTERM to a rank, the test after training: what plugins change and
that all ranks agree on it (protocol/README.md, rules 12, 13 and 15)."""

import json
import os
import signal

import pytest

from runs import assert_as_if_nothing_happened, plugin, table

EPOCH = 10  # micro-batches: 1,000 samples in batches of 50 on 2 ranks


def short(plugins, ranks=2, **changes):
    changes["train"] = {"max_steps": 20, "validate_every": 0, **changes.get("train", {})}
    changes["data"] = {"batch_size": 100 // ranks, **changes.get("data", {})}
    return table(plugins=plugins, **{"checkpoint": {"every": 0}, **changes})


def noted(run, name, rank=0, hook=None):
    path = run.directory / "steering" / f"{name}-{rank}.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line for line in lines if hook in (None, line.get("hook"))]


def micro_batches(run, rank=0):
    """step → how many"""
    counts = {}
    for line in noted(run, "Watches", rank, "on_backward_end"):
        counts[line["step"]] = counts.get(line["step"], 0) + 1
    return counts


# ----- Settings -----


@pytest.mark.parametrize("hook, step, first", [("on_step_start", 3, 4), ("on_step_end", 3, 5), ("on_epoch_start", 10, 10)])
def test_grad_accum_changes_on_all_ranks_at_the_step_that_the_hook_gives(runs, hook, step, first):
    entry = plugin("steering:Sets", given={"name": "grad_accum", "value": 2, "hook": hook, "step": step, "rank": 1})
    run = runs.finish(short([entry, plugin("steering:Watches")]), 2)
    for rank in range(2):
        counts = micro_batches(run, rank)
        assert counts == {s: 1 if s < first else 2 for s in range(20)}
    assert run.summary["batches"]["trained"] == sum(counts.values()) * 2
    assert run.summary["samples"] == sum(counts.values()) * 100


def test_grad_accum_waits_for_the_batches_that_are_on_their_way(runs):
    sets = plugin("steering:Sets", given={"name": "grad_accum", "value": 2, "hook": "on_step_start", "step": 3})
    run = runs.finish(short([sets, plugin("steering:Passes", prefetch=3), plugin("steering:Watches")]), 2)
    assert micro_batches(run) == {s: 1 if s < 4 + 3 else 2 for s in range(20)}


def test_an_epoch_ends_when_less_is_left_than_a_step_needs(runs):
    sets = plugin("steering:Sets", given={"name": "grad_accum", "value": 3, "hook": "on_epoch_start", "step": 0})
    run = runs.finish(short([sets, plugin("steering:Watches")], train={"max_epochs": 2, "max_steps": 0}), 2)
    assert [line["epoch"] for line in noted(run, "Watches", 0, "on_step_end")] == [0, 0, 0, 1, 1, 1]
    assert run.summary["epochs"] == 2


def test_a_set_rate_holds_until_the_schedule_is_asked_for_again(runs):
    config = short(
        [
            plugin("steering:Sets", "set", given={"name": "lr", "value": 0.5, "hook": "on_step_start", "step": 3}),
            plugin("steering:Sets", "back", given={"name": "lr", "hook": "on_step_start", "step": 6}),
            plugin("steering:Watches"),
        ],
        schedule={"type": "linear"},
        optimizer={"lr": 0.01},
    )
    plain = [line["lr"] for line in noted(runs.finish(short([plugin("steering:Watches")], schedule={"type": "linear"},
                                                           optimizer={"lr": 0.01}), 2), "Watches", 0, "on_step_end")]  # fmt: skip
    run = runs.finish(config, 2)
    rates = [line["lr"] for line in noted(run, "Watches", 1, "on_step_end")]
    assert rates == [0.5 if 4 <= step <= 6 else plain[step] for step in range(20)]


@pytest.mark.parametrize("name, hook", [("log_every", "on_log"), ("validate_every", "on_validate_end"),
                                        ("save_every", "on_save_end")])  # fmt: skip
def test_intervals_change_from_the_next_step_on(runs, name, hook):
    sets = plugin("steering:Sets", given={"name": name, "value": 2, "hook": "on_step_start", "step": 10, "rank": 1})
    train = {"log_every": 0 if name == "log_every" else 1, "validate_every": 100}
    run = runs.finish(short([sets, plugin("steering:Watches")], train=train), 2)
    steps = {line["step"] for line in noted(run, "Watches", 0, hook)}
    done = {step + 1 if hook == "on_log" else step for step in steps}
    assert {step for step in done if 11 < step < 20} == {12, 14, 16, 18}
    assert {step for step in done if step <= 11} <= {1}
    assert run.events("set") and run.events("set")[0]["name"] == name


def test_of_two_plugins_the_last_in_the_list_wins(runs):
    entries = [
        plugin("steering:Sets", name, given={"name": "grad_accum", "value": value, "hook": "on_step_start", "rank": rank})
        for name, value, rank in (("first", 5, 0), ("second", 2, 1))
    ]
    run = runs.finish(short([*entries, plugin("steering:Watches")]), 2)
    assert micro_batches(run)[5] == 2


def test_what_may_not_be_set_is_refused_with_the_list_of_what_may(runs):
    run = runs.finish(short([plugin("steering:Sets", given={"name": "batch_size", "value": 2})], train={"max_steps": 6}))
    sentence = noted(run, "Sets")[0]["refused"]
    assert "batch_size" in sentence
    assert all(name in sentence for name in ("grad_accum", "log_every", "lr", "save_every", "validate_every"))


def test_settings_survive_a_resume(runs):
    gate = runs.gate(step=13)
    sets = plugin("steering:Sets", given={"name": "grad_accum", "value": 2, "hook": "on_step_start", "step": 3})
    config = short([sets, plugin("steering:Passes", prefetch=2), gate.plugin])
    run = runs.start(config, 2)
    gate.reached(run)
    run.process.terminate()
    run.wait_event("stop")
    gate.open()
    run.wait(130)
    resumed = runs.finish(config, 2, flags=["--resume", "auto"], run_dir=run.run_dir)
    whole = runs.finish(config, 2)
    assert resumed.weights == whole.weights
    assert resumed.summary["batches"] == whole.summary["batches"]


# ----- Weights -----


def test_a_plugin_that_averages_weights_survives_with_the_same_average(runs):
    whole = runs.finish(short([plugin("steering:Averages")]), 2)
    entry = plugin("steering:Averages", given={"die_at": [2, 3, 11]}, restarts=5)
    run = runs.finish(short([entry]), 2)
    assert_as_if_nothing_happened(run, whole)
    assert len(run.events("crash")) == 3
    for rank in range(2):
        sums = {line["step"]: line["sum"] for line in noted(run, "Averages", rank) if "sum" in line}
        assert sums == {line["step"]: line["sum"] for line in noted(whole, "Averages", rank) if "sum" in line}


def test_weights_loaded_on_one_rank_are_those_of_all(runs):
    entry = plugin("steering:Averages", given={"load_at": 0, "rank": 1})
    run = runs.finish(short([entry]), 2)
    assert run.weights != runs.finish(short([plugin("steering:Averages")]), 2).weights
    last = [noted(run, "Averages", rank)[-1]["weights"] for rank in range(2)]
    assert last[0] == last[1]
    assert [event["step"] for event in run.events("load_weights")] == [10]


def test_weights_that_do_not_fit_are_an_error_and_nothing_changes(runs):
    run = runs.finish(short([plugin("steering:LoadsWrong")]), 2)
    assert run.weights == runs.finish(short([]), 2).weights
    assert "ctx.load_weights" in run.events("error")[0]["reason"]


# ----- Exceptions that end the run -----


@pytest.mark.parametrize("hook, step", [("on_step_end", 3), ("transform_train_batch", 5), ("on_validate_end", 10)])
def test_an_exception_of_raises_ends_the_run_on_all_ranks(runs, hook, step):
    entry = plugin("steering:Raises", given={"hook": hook, "step": step, "rank": 1})
    run = runs.start(short([entry], train={"validate_every": 10}), 2, flags=["--max-restarts", "2"]).wait(1)
    summary = run.summary
    assert (summary["status"], summary["exit_code"]) == ("failed", 1)
    assert summary["reason"] == "Raises: Pruned: no better than the others"
    assert [rank["restarts"] for rank in summary["ranks"]] == [0, 0]
    for rank in range(2):
        assert noted(run, "Raises", rank) == [{"exception": summary["reason"]}]


def test_any_other_exception_is_an_answer(runs):
    run = runs.finish(short([plugin("steering:Raises", given={"fatal": False})]), 2)
    assert run.summary["status"] == "completed"
    assert run.of_plugin("Raises")["errors"] == 1
    assert noted(run, "Raises") == []


# ----- SIGTERM to one rank -----


def test_sigterm_to_one_rank_saves_everywhere_and_stops_everywhere(runs):
    gate = runs.gate(step=6)
    config = short([gate.plugin])
    run = runs.start(config, 2)
    gate.reached(run)
    os.kill(run.workers()[1], signal.SIGTERM)
    gate.open()
    run.wait(130)
    assert run.summary["status"] == "interrupted" and "rank 1" in run.summary["reason"]
    assert run.checkpoints() == [f"step-{run.summary['steps']:08}"]
    resumed = runs.finish(config, 2, flags=["--resume", "auto"], run_dir=run.run_dir)
    assert resumed.weights == runs.finish(short([runs.gate(step=1000).plugin]), 2).weights


# ----- The test after training -----


def test_a_test_comes_after_training_on_data_of_its_own(runs):
    config = short([plugin("witness:Witness")], train={"test": True}, data={"test_fraction": 0.1})
    run = runs.finish(config, 2)
    assert set(run.summary["test"]) == {"loss", "accuracy"}
    seen = [json.loads(line)["hook"] for line in (run.directory / "witness/Witness-0.jsonl").read_text().splitlines()]
    assert seen[-1] == "on_test_end" and "on_test_start" in seen
    assert seen.index("on_test_start") > seen.index("on_train_end")
    assert seen.count("on_test_step_end") == seen.count("transform_test_batch") > 0


def test_a_test_without_data_is_refused(runs):
    run = runs.start(short([], train={"test": True})).wait(2)
    assert "test" in run.errors
