"""CONFORMANCE 7.2 H-O7, 7.4 G-1, and Part B 4.3: what a plugin asks for on one rank happens on all, at one step."""

import os
import signal

import pytest
from actors import EPOCH, actor, calls, digits, steps_of
from runs import plugin

SAVING = {"checkpoint": {"every": EPOCH, "keep": 0}}


def assert_same_on_all_ranks(run, ranks, hook, steps, name="actor"):
    for rank in range(ranks):
        assert steps_of(run, hook, name, rank) == steps, f"{hook} on rank {rank}\n{run.account()}"


# ----- H-O7: should_stop -----


@pytest.mark.parametrize("ends", ["max_steps", "max_epochs"])
def test_HelioS_O7_every_plugin_is_polled_once_a_step(runs, ranks, ends):
    """Ours: one poll a step, by steps and by epochs alike (the poll of an epoch's last step is the epoch's)."""
    train = {} if ends == "max_steps" else {"max_steps": 0, "max_epochs": 2}
    run = runs.finish(digits([actor("python", "python"), actor("native", "native")], ranks, train=train), ranks)
    for name in ("python", "native"):
        assert_same_on_all_ranks(run, ranks, "should_stop", [*range(2 * EPOCH)], name)
    assert run.summary["status"] == "completed"


def test_HelioS_O7_a_stop_skips_the_validation_and_the_save_of_its_step(runs, place):
    """Said in step 3, done at the end of step 4 (DESIGN 6.3): the validation and the save due there are skipped."""
    language, ranks = place
    first = actor(language, "first", [f"yes should_stop 3 {ranks - 1}"])
    run = runs.finish(digits([first, actor(language, "second")], ranks, **SAVING), ranks)
    summary = run.summary
    assert (summary["status"], summary["exit_code"], summary["steps"]) == ("stopped", 0, EPOCH)
    assert summary["reason"] == "first said should_stop"
    for name in ("first", "second"):  # no short circuit: all are asked in step 3, and once more in 4
        assert_same_on_all_ranks(run, ranks, "should_stop", [*range(EPOCH)], name)
        assert_same_on_all_ranks(run, ranks, "on_validate_start", [], name)
        assert_same_on_all_ranks(run, ranks, "on_save_end", [EPOCH], name)  # the one at the end, always made
        assert_same_on_all_ranks(run, ranks, "on_train_end", [EPOCH], name)


def test_HelioS_O7_a_stop_that_nobody_repeats_is_not_forgotten_by_a_death(runs, language):
    """The plugin dies in its next step, before what it has said is done."""
    script = ["yes should_stop 3 1", "die on_step_start 4 1"]
    run = runs.finish(digits([actor(language, script=script)], 2, **SAVING), 2)
    assert (run.summary["status"], run.summary["steps"]) == ("stopped", EPOCH)
    assert len(run.events("crash")) == 1


# ----- G-1: a shutdown that one rank is asked for -----


def test_G_1_a_save_and_then_a_stop_from_one_rank(runs, place):
    """on_step_end asks to save; on_save_end, when all have saved, to stop."""
    language, ranks = place
    last = ranks - 1
    script = [f"save on_step_end 1 {last}", f"stop on_save_end 3 {last}"]
    run = runs.finish(digits([actor(language, script=script)], ranks), ranks)
    assert (run.summary["status"], run.summary["steps"]) == ("stopped", 3)
    assert run.checkpoints() == ["step-00000003"]
    assert_same_on_all_ranks(run, ranks, "on_save_end", [3, 3])
    assert_same_on_all_ranks(run, ranks, "on_step_end", [0, 1, 2])


def test_G_1_a_signal_to_one_rank_s_plugin_saves_and_stops_all(runs, ranks):
    gate = runs.gate(step=3, rank=ranks - 1)
    run = runs.start(digits([plugin("graceful_exit"), gate.plugin, actor("python")], ranks), ranks)
    gate.reached(run)
    os.kill(run.hosts()[0, ranks - 1], signal.SIGUSR1)
    run.wait_for(lambda: (run.directory / "stop").exists(), "the request was noted")
    gate.open()
    run.wait(0)
    assert run.summary["status"] == "stopped" and "SIGUSR1" in run.summary["reason"]
    steps = run.summary["steps"]
    assert 4 <= steps < 2 * EPOCH and run.checkpoints() == [f"step-{steps:08}"]
    assert_same_on_all_ranks(run, ranks, "on_step_end", [*range(steps)])


def test_G_1_sigterm_to_one_rank_saves_and_stops_all(runs, ranks):
    gate = runs.gate(step=3, rank=ranks - 1)
    run = runs.start(digits([gate.plugin, actor("native")], ranks), ranks)
    gate.reached(run)
    os.kill(run.workers()[ranks - 1], signal.SIGTERM)
    gate.open()
    run.wait(130)
    steps = run.summary["steps"]
    assert run.summary["status"] == "interrupted" and run.checkpoints() == [f"step-{steps:08}"]
    assert_same_on_all_ranks(run, ranks, "on_save_end", [steps])


# ----- Part B 4.3: TrainerControl -----


def test_HF_control_is_asked_for_once_and_done_once(runs, place):
    """should_save, should_evaluate and should_log are reset each step."""
    language, ranks = place
    script = [f"{asks} on_step_end {step} {ranks - 1}" for asks, step in (("save", 0), ("validate", 1), ("log", 6))]
    run = runs.finish(digits([actor(language, script=script)], ranks, train={"log_every": 100}), ranks)
    assert_same_on_all_ranks(run, ranks, "on_save_end", [2, 10])
    assert_same_on_all_ranks(run, ranks, "on_validate_end", [3, 5, 10])
    assert_same_on_all_ranks(run, ranks, "on_log", [0, 7, 9])


def test_HF_control_an_epoch_stop_is_of_that_epoch_only(runs, place):
    language, ranks = place
    run = runs.finish(
        digits([actor(language, script=[f"stop_epoch on_step_start 1 {ranks - 1}"])], ranks,
               train={"max_steps": 0, "max_epochs": 3}), ranks,
    )  # fmt: skip
    assert_same_on_all_ranks(run, ranks, "on_epoch_end", [2, 2 + EPOCH, 2 + 2 * EPOCH])
    assert run.summary["epochs"] == 2, "whole ones"


# ----- Part B 5.4: what a plugin knows -----


def test_HelioS_5_4_the_state_of_a_rank(runs, ranks):
    run = runs.finish(digits([actor("python", "python"), actor("native", "native")], ranks), ranks)
    for rank in range(ranks):
        for line in calls(run, "python", rank) + calls(run, "native", rank):
            if "rank" not in line:  # state hooks of C++ have no ctx
                continue
            assert (line["rank"], line["local_rank"], line["world_size"]) == (rank, rank, ranks)
            assert line["is_distributed"] == (ranks > 1) and line["is_main"] == (rank == 0)
            assert (line["device"], line["map_loc"]) == ("cpu", {"cuda:0": "cpu"})
        told = [[{key: line[key] for key in line if key not in ("call_id", "draw")} for line in calls(run, name, rank)
                 if "state_dict" not in line["hook"]] for name in ("python", "native")]  # fmt: skip
        assert told[0] == told[1], "both languages are told the same"
