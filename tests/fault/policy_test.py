"""Lasting faults: the restart budget, what comes after it, and inputs that kill."""

import json
import subprocess

import pytest

from runs import BULKHEAD, assert_as_if_nothing_happened, plugin, table


def calls(run, rank):
    path = run.directory / "calls" / f"mortal-{rank}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def mortal(then, **given):
    given = {"from_step": 7, **given}
    return table(plugins=[plugin("mortal:Mortal", "mortal", given=given, restarts=2, then=then)])


# ----- The budget -----


def test_disabled_on_all_ranks_at_one_step_and_the_run_completes(runs):
    first = runs.finish(mortal("disable"), 2)
    second = runs.finish(mortal("disable"), 2)
    assert first.weights == second.weights, f"{first.account()}\n{second.account()}"
    # Step 7 kills twice and is poison; step 8 uses the budget up.
    dead, other = ([call["step"] for call in calls(first, rank) if call["hook"] == "on_step_end"] for rank in (0, 1))
    assert max(dead) == 8 and max(other) == 8, f"{dead} {other}\n{first.account()}"
    assert calls(first, 1) == calls(second, 1)
    summary = first.summary
    assert (summary["status"], summary["steps"]) == ("completed", 30)
    assert [rank["restarts"] for rank in summary["ranks"]] == [0, 0]
    assert summary["batches"]["lost"] == summary["batches"]["duplicated"] == 0
    told = first.of_plugin("mortal")
    assert told["state"] == "disabled" and told["starts"] == 3 and len(told["crashes"]) == 3
    assert {crash["signal"] for crash in told["crashes"]} == {"SIGKILL"}
    assert {(crash["hook"], crash["step"]) for crash in told["crashes"]} == {("on_step_end", 7), ("on_step_end", 8)}
    assert first.of_plugin("mortal", 1)["state"] == "disabled"
    (disable,) = first.events("disable", plugin="mortal")
    assert "SIGKILL" in disable["reason"] and "2" in disable["reason"], disable
    (poison,) = first.events("poison", plugin="mortal")
    assert (poison["hook"], poison["step"]) == ("on_step_end", 7)


def test_without_restarts_the_first_death_disables(runs):
    config = table(plugins=[plugin("mortal:Mortal", "mortal", given={"from_step": 7}, restarts=0)])
    first, second = runs.finish(config, 2), runs.finish(config, 2)
    assert first.weights == second.weights
    assert first.of_plugin("mortal")["starts"] == 1 and first.of_plugin("mortal")["state"] == "disabled"


def test_a_disabled_plugin_leaves_those_after_it_in_peace(runs):
    config = mortal("disable", rank=1)
    config["plugins"].append(plugin("wander:Wander", prefetch=2))
    first, second = runs.finish(config, 2), runs.finish(config, 2)
    assert first.weights == second.weights, f"{first.account()}\n{second.account()}"
    assert first.of_plugin("Wander", 1)["crashes"] == []
    for run in (first, second):
        assert run.of_plugin("mortal", 0)["state"] == "disabled", run.account()


def test_abort_ends_the_run_with_exit_3(runs):
    run = runs.finish(mortal("abort"), 2, status=3)
    summary = run.summary
    assert (summary["status"], summary["exit_code"]) == ("aborted", 3)
    assert "mortal" in summary["reason"] and "SIGKILL" in summary["reason"]
    assert 7 <= summary["steps"] < 30, summary["steps"]
    assert run.events("abort", plugin="mortal")


def test_a_plugin_that_never_starts_is_disabled_before_the_first_step(runs):
    def config(plugins):
        return table(train={"max_steps": 10}, plugins=plugins)

    given = {"how": "segv", "hook": "setup", "step": -1, "rank": -1, "times": 1000}
    run = runs.finish(config([plugin("saboteur", given=given, restarts=1)]), 2)
    assert run.weights == runs.finish(config([]), 2).weights
    assert {entry["state"] for entry in run.summary["plugins"]} == {"disabled"}


def test_a_constructor_that_always_dies_is_disabled_before_the_first_step(runs):
    given = {"how": "abort", "hook": "__init__", "times": 1000}
    run = runs.finish(table(train={"max_steps": 10}, plugins=[plugin("saboteur.so", given=given, restarts=1)]), 2)
    assert run.of_plugin("saboteur")["starts"] == 2
    assert {entry["state"] for entry in run.summary["plugins"]} == {"disabled"}


# ----- Inputs that kill -----


def picky(how, on_poison=None, **given):
    keys = {"on_poison": on_poison} if on_poison else {}
    config = table(
        train={"accumulate": 2},
        plugins=[plugin("mortal:Picky", "picky", given={"step": 6, "how": how, **given}, **keys)],
    )
    config["plugins"][0]["on_failure"] = {"restarts": 8}
    return config


@pytest.mark.parametrize("how", ["die", "raise", "lie"])
@pytest.mark.parametrize("on_poison", [None, "skip"])
def test_a_batch_that_fails_the_plugin_for_good(runs, how, on_poison):
    first = runs.finish(picky(how, on_poison), 2)
    second = runs.finish(picky(how, on_poison), 2)
    assert first.weights == second.weights, f"{first.account()}\n{second.account()}"
    summary = first.summary
    assert summary["status"] == "completed" and summary["steps"] == 30
    batches = summary["batches"]
    assert batches["skipped"] == (2 if on_poison == "skip" else 0)
    assert batches["dead_lettered"] == 2 and batches["lost"] == batches["duplicated"] == 0
    assert batches["trained"] == 30 * 2 * 2 - batches["skipped"]
    letters = sorted((first.directory / "dead_letters").glob("*.json"))
    assert len(letters) == 2 and len(list(letters[0].parent.glob("*.safetensors"))) == 2
    letter = json.loads(letters[0].read_text())
    assert (letter["plugin"], letter["step"], letter["rank"]) == ("picky", 6, 0) and letter["reason"]
    told = first.of_plugin("picky")
    assert told["state"] == "ready" and told["starts"] == (5 if how == "die" else 1)
    assert told["errors"] == (0 if how == "die" else 2)
    event = "poison" if how == "die" else "error"
    assert [line["step"] for line in first.events(event, plugin="picky")] == [6, 6]


def test_what_failed_for_good_is_trained_on_unchanged(runs):
    """identity: exactly the weights of a run whose plugin lets that step pass."""
    died, raised = runs.finish(picky("die"), 1), runs.finish(picky("raise"), 1)
    assert died.weights == raised.weights
    assert died.weights != runs.finish(picky("die", step=1000), 1).weights
    assert died.weights != runs.finish(picky("die", on_poison="skip"), 1).weights


def test_a_poisonous_batch_may_end_the_run(runs):
    run = runs.finish(picky("die", "abort"), 2, status=3)
    assert run.summary["status"] == "aborted" and "picky" in run.summary["reason"], run.summary["reason"]


# ----- Exceptions -----


def test_an_exception_in_a_notify_hook_is_an_answer(runs):
    run = runs.finish(table(plugins=[plugin("mortal:Complains")]))
    reference = runs.finish(table(plugins=[]))
    assert_as_if_nothing_happened(run, reference)
    told = run.of_plugin("Complains")
    assert (told["errors"], told["starts"], told["crashes"]) == (1, 1, [])
    (error,) = run.events("error", plugin="Complains")
    assert (error["hook"], error["step"]) == ("on_step_end", 4)
    assert "I do not like step four" in error["reason"] and "mortal.py" in error["traceback"]


def test_the_shorter_last_batch_of_a_validation_is_like_any_other(runs):
    """500 samples in batches of 64: the last holds 52."""
    config = table(
        plugins=[plugin("saboteur", given={"times": 0}), plugin("saboteur.so", "native", given={"times": 0})],
        data={"batch_size": 64},
        train={"validate_batches": 0},
    )
    run = runs.finish(config)
    assert run.events("error") == []
    assert run.events("crash") == []


# ----- Replay -----


def replayed(letter, *flags):
    command = [str(BULKHEAD), "plugin", "replay", str(letter), *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("how, said", [("die", "it died in transform_train_batch: its process ended with status 9"),
                                       ("raise", "it raised ValueError: this batch tastes of tin"),
                                       ("lie", "it answered: Batch(features float32[20, 15]), kept labels")])  # fmt: skip
def test_a_dead_letter_can_be_given_to_its_plugin_again(runs, how, said):
    run = runs.finish(picky(how, None))
    letter = min((run.directory / "dead_letters").glob("*.json"))
    again = replayed(letter)
    assert said in again.stdout, again.stdout + again.stderr
    assert "transform_train_batch of step 6, rank 0" in again.stdout
    assert again.returncode == (0 if how == "lie" else 1)
    assert replayed(letter.with_suffix(".safetensors")).returncode == again.returncode


def test_a_dead_letter_of_a_native_plugin_can_be_too(runs):
    given = {"how": "segv", "hook": "transform_train_batch", "step": 6, "rank": -1, "times": 2}
    run = runs.finish(table(plugins=[plugin("saboteur.so", given=given, restarts=8)]))
    letter = next((run.directory / "dead_letters").glob("*.json"))
    said = replayed(letter).stdout
    assert "it died in transform_train_batch" in said and "SIGSEGV" in said, said


@pytest.mark.parametrize("damage, said", [("missing", "No such file"), ("ending", "does not end with .json"),
                                          ("hook", 'there is no hook "on_stepend"; did you mean "on_step_end"?'),
                                          ("config", 'has no "config"'), ("bytes", "is not a safetensors file"),
                                          ("json", "is not JSON")])  # fmt: skip
def test_what_is_no_dead_letter_is_refused(runs, tmp_path, damage, said):
    run = runs.finish(picky("raise", None))
    source = min((run.directory / "dead_letters").glob("*.json"))
    letter, tensors = tmp_path / "a.json", tmp_path / "a.safetensors"
    about = json.loads(source.read_text())
    if damage == "hook":
        about["hook"] = "on_stepend"
    if damage == "config":
        del about["config"]
    data = source.with_suffix(".safetensors").read_bytes()
    tensors.write_bytes(data[:-1] if damage == "bytes" else data)
    if damage != "missing":
        letter.write_text("{" if damage == "json" else json.dumps(about))
    refused = replayed(tmp_path / "a.txt" if damage == "ending" else letter)
    assert refused.returncode == 2 and said in refused.stderr, refused.stderr
    assert refused.stderr.count("\n") == 1
