"""CONFORMANCE 7.2, and Part B 2.1, 4.3 and 5.2: which hooks are called, how often and in which order."""

import re

import pytest
from actors import EPOCH, actor, calls, digits, hooks, steps_of
from runs import starter

LANGUAGES = ("python", "native")
TRAIN_HOOKS = {
    "setup", "on_train_start", "on_train_end", "transform_train_batch", "on_validate_start", "on_validate_step_end",
    "transform_validate_batch", "on_validate_end", "should_stop",
}  # fmt: skip
TEST_HOOKS = {"on_test_start", "transform_test_batch", "on_test_step_end", "on_test_end"}
RUNS = {}

on_two_ranks = pytest.mark.parametrize("ranks", [2], ids="{}-ranks".format)


@pytest.fixture
def whole(ranks, tmp_path_factory):
    """A run of two epochs and a test with an actor of each language and no prefetch; one for all tests of a process."""
    if ranks not in RUNS:
        with starter(tmp_path_factory.mktemp(f"ranks{ranks}")) as runs:
            plugins = [actor(language, language, prefetch=0) for language in LANGUAGES]
            changes = {"train": {"test": True}, "checkpoint": {"every": 4}}
            RUNS[ranks] = runs.finish(digits(plugins, ranks, **changes), ranks)
    return RUNS[ranks]


def each(whole, ranks):
    """(language, rank) of every plugin process."""
    return [(language, rank) for language in LANGUAGES for rank in range(ranks)]


def in_order(line, pattern):
    """Whether hook names, with a blank behind each, are what the regular expression says."""
    text = "".join(f"{hook} " for hook in line)
    assert re.fullmatch(pattern, text), text


@pytest.mark.parametrize("ends", ["max_steps", "max_epochs"])
def test_HelioS_O1_O2_every_train_hook_is_called_by_steps_and_by_epochs(runs, language, ends):
    train = {"max_steps": 10, "validate_every": 10} if ends == "max_steps" else {"max_steps": 0, "max_epochs": 1,
                                                                                "validate_every": 0}  # fmt: skip
    run = runs.finish(digits([actor(language)], train=train))
    assert TRAIN_HOOKS <= set(hooks(run))
    assert len(steps_of(run, "should_stop")) == (10 if ends == "max_steps" else EPOCH)
    assert hooks(run).count("on_validate_end") >= 1


@on_two_ranks
def test_HelioS_O3_a_test_calls_start_batches_and_end(whole, ranks):
    for language, rank in each(whole, ranks):
        of_test = [hook for hook in hooks(whole, language, rank) if hook in TEST_HOOKS]
        in_order(of_test, "on_test_start (transform_test_batch on_test_step_end )+on_test_end ")


@on_two_ranks
def test_HelioS_O4_plugins_come_before_the_trainers_own_step(whole, ranks):
    """Ours has no model hooks: what a hook is told is the trainer's state before its own step of that name."""
    for language, rank in each(whole, ranks):
        losses = {line["global_step"]: line["metrics"]["loss"] for line in calls(whole, language, rank, "on_step_end")}
        for line in calls(whole, language, rank, "on_step_start"):
            assert line["metrics"].get("loss") == losses.get(line["global_step"] - 1)
        for line in calls(whole, language, rank, "transform_train_batch"):
            assert line["metrics"].get("loss") == losses.get(line["global_step"] - 1), "prefetch 0: the step before"


@pytest.mark.parametrize("accumulate", [1, 2, 4, 5, 10])
def test_HelioS_O5_the_step_is_the_number_of_batches_divided_by_the_accumulation(runs, accumulate):
    plugins = [actor(language, language, prefetch=0) for language in LANGUAGES]
    config = digits(plugins, data={"batch_size": 20}, train={"accumulate": accumulate, "max_steps": 3})
    run = runs.finish(config)
    for language in LANGUAGES:
        for hook in ("transform_train_batch", "on_backward_end"):
            batches = [(line["global_step"], line["micro_batch"]) for line in calls(run, language, hook=hook)]
            assert batches == [divmod(batch, accumulate) for batch in range(3 * accumulate)]
        assert steps_of(run, "on_log", language) == [0, 1, 2], "logged only when the step has changed"
        substeps = [line["micro_batch"] for line in calls(run, language, hook="on_substep_end")]
        assert substeps == [*range(accumulate - 1)] * 3


def test_HelioS_O6_the_step_trains_on_what_the_transform_left(runs, place):
    language, ranks = place
    taking = actor(language, "taking", ["take transform_train_batch * * 2"])
    run = runs.finish(digits([taking, actor(language, "after")], ranks), ranks)
    for rank in range(ranks):
        assert {line["rows"] for line in calls(run, "after", rank, "transform_train_batch")} == {2}
        shares = {line["metrics"]["accuracy"] for line in calls(run, "after", rank, "on_backward_end")}
        assert shares <= {0.0, 0.5, 1.0}, "of two samples"
        assert run.of_plugin("taking", rank)["errors"] == 0


def test_E_O2_an_epoch_is_start_then_steps_then_end_and_training_ends_before_the_final_save(whole, ranks):
    kept = ("on_train_start", "on_epoch_start", "on_step_start", "on_step_end", "on_epoch_end", "on_train_end")
    for language, rank in each(whole, ranks):
        called = hooks(whole, language, rank)
        epoch = f"on_epoch_start (on_step_start on_step_end ){{{EPOCH}}}on_epoch_end "
        in_order([hook for hook in called if hook in kept], f"on_train_start ({epoch}){{2}}on_train_end ")
        after = called[called.index("on_train_end") + 1 :]
        assert after[:3] == ["on_save_start", "state_dict", "on_save_end"]
        assert "on_save_start" not in after[3:]
        # What on_step_end is told is the step it ends, not yet incremented.
        assert steps_of(whole, "on_step_end", language, rank) == [*range(2 * EPOCH)]
        assert steps_of(whole, "on_epoch_end", language, rank) == [EPOCH, 2 * EPOCH]
        assert steps_of(whole, "on_train_end", language, rank) == [2 * EPOCH]


def test_M_O1_a_step_is_begun_trained_counted_ended_logged_validated_and_saved(whole, ranks):
    kept = ("on_step_start", "on_optimizer_step_end", "on_step_end", "on_log", "on_validate_start", "on_validate_end",
            "on_save_start", "on_save_end")  # fmt: skip
    step = "on_step_start on_optimizer_step_end on_step_end on_log "
    validation, save = "on_validate_start on_validate_end ", "on_save_start on_save_end "
    by_step = [step + validation * (done % EPOCH == 0) + save * (done % 4 == 0) for done in range(1, 11)]
    for language, rank in each(whole, ranks):
        in_order([hook for hook in hooks(whole, language, rank) if hook in kept], "".join(by_step) + save)
        assert steps_of(whole, "on_validate_end", language, rank) == [5, 10], "completed steps"
        assert steps_of(whole, "on_save_end", language, rank) == [4, 8, 10]


@on_two_ranks
def test_HF_callbacks_the_order_within_a_step(whole, ranks):
    """TrainerCallback's on_step_begin, on_pre_optimizer_step, on_optimizer_step, on_step_end, on_log."""
    for language, rank in each(whole, ranks):
        called = hooks(whole, language, rank)
        first = called.index("on_step_start")
        assert called[first : first + 8] == [
            "on_step_start", "transform_train_batch", "on_backward_end", "on_optimizer_step_start",
            "on_optimizer_step_end", "on_step_end", "should_stop", "on_log",
        ]  # fmt: skip


@on_two_ranks
def test_HF_state_best_metric_is_that_of_the_validations_so_far(whole, ranks):
    for language, rank in each(whole, ranks):
        ends = calls(whole, language, rank, "on_validate_end")
        losses = [line["metrics"]["loss"] for line in ends]
        assert [line["best_metric"] for line in ends] == [min(losses[: at + 1]) for at in range(len(losses))]
        before = [line["best_metric"] for line in calls(whole, language, rank, "on_step_end")]
        assert before == [None] * EPOCH + [losses[0]] * EPOCH


@on_two_ranks
def test_HelioS_5_2_a_validation_is_start_batches_end_and_nothing_is_trained_in_it(whole, ranks):
    for language, rank in each(whole, ranks):
        called = hooks(whole, language, rank)
        begin, end = called.index("on_validate_start"), called.index("on_validate_end")
        in_order(called[begin : end + 1],
                 "on_validate_start (transform_validate_batch on_validate_step_end ){2}on_validate_end ")  # fmt: skip


def test_both_languages_are_called_alike(whole, ranks):
    for rank in range(ranks):
        assert hooks(whole, "python", rank) == hooks(whole, "native", rank)
        training = [hook for hook in hooks(whole, "python", rank) if hook not in TEST_HOOKS]
        assert training == [hook for hook in hooks(whole, "python", 0) if hook not in TEST_HOOKS], "every rank"
