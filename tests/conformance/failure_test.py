"""CONFORMANCE 7.2 E-O3, 7.4 H-F1 and E-F1: plugins that raise, and slow ones."""

import pytest
from actors import EPOCH, actor, calls, digits, steps_of

# ----- H-F1: exceptions that are meant to end the run -----


@pytest.mark.parametrize("hook, step, status", [
    ("on_step_end", 3, 1), ("on_validate_end", 5, 1), ("on_test_end", 10, 1), ("setup", 0, 2),
])  # fmt: skip
def test_HelioS_F1_an_exception_of_the_list_ends_the_run(runs, language, hook, step, status):
    """Helios has a list for training and one for tests; ours is one, of the plugin's class.  In setup any exception
    refuses the run."""
    script = [f"expected {hook} {step} 0"]
    config = digits([actor(language, script=script)], train={"test": True})
    run = runs.start(config).wait(status)
    if hook == "setup":
        assert "as foreseen" in run.errors and "setup" in run.errors
        return
    summary = run.summary
    assert (summary["status"], summary["exit_code"]) == ("failed", 1)
    of_type = "Expected" if language == "python" else "tests::Expected"
    assert summary["reason"] == f"actor: {of_type}: as foreseen"


def test_HelioS_F1_it_ends_the_run_on_all_ranks_and_for_all_plugins(runs, place):
    language, ranks = place
    raising = actor(language, "raising", [f"expected on_step_end 3 {ranks - 1}"])
    others = [actor("python", "python"), actor("native", "native")]
    run = runs.start(digits([raising, *others], ranks), ranks).wait(1)
    assert [rank["restarts"] for rank in run.summary["ranks"]] == [0] * ranks
    for rank in range(ranks):
        for name in ("raising", "python", "native"):
            assert [line["exception"] for line in calls(run, name, rank, "on_exception")] == [run.summary["reason"]]
            assert steps_of(run, "on_save_end", name, rank) == [], "nothing is saved"
            assert steps_of(run, "on_step_end", name, rank) == [*range(EPOCH)], "the step of its Control"


def test_HelioS_F1_any_other_exception_is_an_answer(runs, place):
    """Helios' fit returns False; ours counts it and trains on."""
    language, ranks = place
    places = ("transform_train_batch 3", "on_step_end 3", "on_validate_end 5")
    script = [f"fail {at} {ranks - 1}" for at in places]
    run = runs.finish(digits([actor(language, script=script, prefetch=0)], ranks), ranks)
    assert (run.summary["status"], run.summary["steps"]) == ("completed", 2 * EPOCH)
    assert [run.of_plugin("actor", rank)["errors"] for rank in range(ranks)] == [0] * (ranks - 1) + [3]
    errors = run.events("error")
    assert [f"fail {error['hook']} {error['step']} {error['rank']}" for error in errors] == script
    assert all("nobody foresaw this" in error["reason"] for error in errors)
    assert run.of_plugin("actor", ranks - 1)["starts"] == 1, "its process lives on"


def test_HelioS_F1_any_exception_in_setup_refuses_the_run(runs, language):
    run = runs.start(digits([actor(language, script=["fail setup 0 0"])])).wait(2)
    assert "setup" in run.errors and "nobody foresaw this" in run.errors and "Traceback" not in run.errors


# ----- E-F1: one plugin's exception is not another's -----


def test_E_F1_after_an_exception_the_next_plugin_still_runs(runs, place):
    """The original re-raises from on_step_start; ours does not: an exception is an answer everywhere."""
    language, ranks = place
    script = ["fail on_step_start * *", "fail on_step_end * *"]
    run = runs.finish(digits([actor(language, "raising", script), actor(language, "next")], ranks), ranks)
    for rank in range(ranks):
        for hook in ("on_step_start", "on_step_end"):
            assert steps_of(run, hook, "next", rank) == [*range(2 * EPOCH)]
            assert steps_of(run, hook, "raising", rank) == [*range(2 * EPOCH)], "and it is called again"
            assert "nobody foresaw this" in run.events("error", hook=hook, rank=rank)[0]["reason"]
        assert run.of_plugin("raising", rank)["errors"] == 4 * EPOCH
        assert run.of_plugin("next", rank)["errors"] == 0


# ----- E-O3: slow hooks -----


def test_E_O3_a_slow_hook_is_warned_of_and_changes_nothing(runs):
    """Limits: a step's hook 0.5 s, an epoch's 5 s, one of training 20 s."""
    places = ("on_step_end 1 0 0.6", "on_step_end 2 0 0.4", "on_epoch_end 5 0 5.1", "on_epoch_start 5 0 0.6",
              "on_train_start 0 0 5.1", "on_train_end 10 0 20.1")  # fmt: skip
    script = [f"sleep {at}" for at in places]
    plain = runs.finish(digits([actor("python", "python"), actor("native", "native")]))
    run = runs.finish(digits([actor("python", "python", script), actor("native", "native", script)]))
    for name in ("python", "native"):
        slow = [(event["hook"], event["step"]) for event in run.events("slow_hook", plugin=name)]
        assert slow == [("on_step_end", 1), ("on_epoch_end", 5), ("on_train_end", 10)]
        assert [round(event["seconds"], 1) for event in run.events("slow_hook", plugin=name)] == [0.6, 5.1, 20.1]
    assert plain.events("slow_hook") == []
    assert run.weights == plain.weights and run.summary["status"] == "completed"
