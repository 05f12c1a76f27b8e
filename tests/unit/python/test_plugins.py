"""The shipped plugins: what early_stop decides, what csv_log leaves, how often the saboteur strikes."""

import os

import numpy as np
import pytest

from bulkhead import Batch, context, messages
from bulkhead.context import Context, Facts


def make_ctx(run_dir="", rank=0, **call):
    facts = Facts(plugin="plug", run_dir=str(run_dir), rank=rank, is_main=rank == 0)
    return Context(facts, {**messages.default_context(), **call}, "hook", 0, lambda kind, fields: None)


# ----- early_stop -----


def stops_after(plugin, losses):
    """After how many validations it stops, and why; 0: never."""
    for count, loss in enumerate(losses, 1):
        ctx = make_ctx(metrics={} if loss is None else {"loss": loss})
        plugin.on_validate_end(ctx)
        if ctx.control.asked():
            return count, ctx.control.asked()["reason"]
    return 0, ""


@pytest.mark.parametrize(
    "given, losses, count",
    [
        ({"patience": 2}, [3, 2, 1, 0.5], 0),
        ({"patience": 2}, [3, 2, 2.5, 2.1], 4),
        ({"patience": 2}, [3, 3, 3], 3),
        ({"patience": 2}, [3, 4, 2, 4, 1], 0),
        ({"patience": 1, "min_delta": 0.1}, [3, 2.95], 2),
        ({"patience": 1, "min_delta": 0.1}, [3, 2.85, 2.7], 0),
        ({"patience": 2}, [float("nan"), float("nan")], 2),
        ({"patience": 1}, [None, None, None], 0),
    ],
)
def test_early_stop_stops_when_the_loss_no_longer_improves(shipped, given, losses, count):
    assert stops_after(shipped("early_stop").EarlyStop(**given), losses)[0] == count


def test_early_stop_says_why(shipped):
    plugin = shipped("early_stop").EarlyStop(patience=2)
    assert stops_after(plugin, [1.5, 2, 3])[1] == "no better loss in 2 validations (best 1.5)"


def test_early_stop_goes_on_counting_from_its_state(shipped):
    first, second = shipped("early_stop").EarlyStop(2), shipped("early_stop").EarlyStop(2)
    assert stops_after(first, [1, 2])[0] == 0
    second.load_state_dict(first.state_dict())
    assert stops_after(second, [2])[0] == 1


@pytest.mark.parametrize("given", [{"patience": 0}, {"min_delta": -0.1}, {"min_delta": float("nan")}])
def test_early_stop_refuses_what_makes_no_sense(shipped, given):
    with pytest.raises(ValueError, match=next(iter(given))):
        shipped("early_stop").EarlyStop(**given)


# ----- csv_log -----


@pytest.fixture
def log(shipped, tmp_path):
    """Makes a CsvLog that is set up; all of one test write the same file."""

    def make(**given):
        plugin = shipped("csv_log").CsvLog(**given)
        plugin.setup(make_ctx(tmp_path))
        return plugin

    return make


def write_steps(plugin, run_dir, steps, **call):
    for step in steps:
        metrics = {"loss": step / 2, "accuracy": 0.5}
        plugin.on_step_end(make_ctx(run_dir, global_step=step, metrics=metrics, lr=0.1, grad_norm=2.0, **call))


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
        resumed.on_load(make_ctx(tmp_path, global_step=4))
        assert [line.split(",")[0] for line in lines(tmp_path)] == ["step", "1", "2", "3", "4"]
        write_steps(resumed, tmp_path, range(4, 6))
    assert [line.split(",")[0] for line in lines(tmp_path)] == ["step", "1", "2", "3", "4", "5", "6"]


def test_csv_log_begins_anew_with_the_run(log, tmp_path):
    write_steps(log(), tmp_path, range(3))
    plugin = log()
    plugin.on_train_start(make_ctx(tmp_path))
    write_steps(plugin, tmp_path, range(1))
    assert len(lines(tmp_path)) == 2


def test_csv_log_drops_half_a_line_that_a_crash_left(log, tmp_path):
    write_steps(log(), tmp_path, range(2))
    with open(tmp_path / "metrics.csv", "a") as file:
        file.write("3,0,1")
    write_steps(log(), tmp_path, range(1, 3))
    assert [line.split(",")[0] for line in lines(tmp_path)] == ["step", "1", "2", "3"]


def test_csv_log_writes_on_rank_0_only(shipped, tmp_path):
    plugin = shipped("csv_log").CsvLog()
    ctx = make_ctx(tmp_path, rank=1)
    plugin.setup(ctx)
    plugin.on_train_start(ctx)
    plugin.on_step_end(ctx)
    assert os.listdir(tmp_path) == []


# ----- saboteur -----


@pytest.fixture
def saboteur(shipped, tmp_path, monkeypatch):
    monkeypatch.setattr(context, "_facts", Facts(plugin="plug", run_dir=str(tmp_path)))
    return shipped("saboteur").Saboteur


def strikes(plugin, hook, run_dir, step=0, rank=0):
    try:
        getattr(plugin, hook)(make_ctx(run_dir, global_step=step, rank=rank))
    except RuntimeError:
        return True
    return False


def test_the_saboteur_strikes_at_its_place_only(saboteur, tmp_path):
    plugin = saboteur(how="raise", hook="on_epoch_end", step=[2, 4])
    assert [strikes(plugin, "on_epoch_end", tmp_path, step) for step in range(5)] == [False, False, True, False, True]
    assert not strikes(saboteur(how="raise", step=2), "on_step_end", tmp_path, 2, rank=1)
    assert not strikes(saboteur(how="raise", step=2), "on_step_start", tmp_path, 2)
    assert strikes(saboteur(how="raise", step=-1, rank=-1), "on_step_end", tmp_path, 9, rank=1)


def test_the_saboteur_strikes_as_often_as_told_over_incarnations(saboteur, tmp_path):
    def incarnation():
        return saboteur(how="raise", hook="setup", times=2)

    assert [strikes(incarnation(), "setup", tmp_path) for _ in range(4)] == [True, True, False, False]
    assert not strikes(saboteur(how="raise", hook="on_load", times=0), "on_load", tmp_path)


def test_the_saboteur_strikes_in_its_constructor(saboteur, tmp_path):
    with pytest.raises(RuntimeError):
        saboteur(how="raise", hook="__init__")
    saboteur(how="raise", hook="__init__")


def make_batch():
    ids, values = np.arange(6).reshape(2, 3), np.float32([1, 2])
    return Batch([("input_ids", "int64", (2, 3), ids.tobytes()), ("f", "float32", (2,), values.tobytes())])


def test_the_saboteur_changes_batches_as_a_function_of_what_it_has_seen(saboteur, tmp_path):
    first = saboteur(times=0)
    outputs = []
    for _ in range(2):
        batch = make_batch()
        first.transform_train_batch(batch, make_ctx(tmp_path))
        outputs.append((batch["input_ids"].tolist(), batch["f"].tolist()))
    assert outputs[0][0] == [[1, 0, 2], [4, 3, 5]] and outputs[1][0] == [[0, 1, 2], [3, 4, 5]]
    assert outputs[0][1] != outputs[1][1]
    second = saboteur(times=0)
    second.load_state_dict(first.state_dict(make_ctx(tmp_path)), make_ctx(tmp_path))
    assert second.seen == 2


@pytest.mark.parametrize("how", ["nan", "wrong_shape", "wrong_type"])
def test_the_saboteur_lies_about_its_output(saboteur, tmp_path, how):
    batch = make_batch()
    saboteur(how=how, hook="transform_train_batch").transform_train_batch(batch, make_ctx(tmp_path))
    assert np.isnan(batch["f"]).all() == (how == "nan")
    assert (batch["f"].shape == (1,)) == (how == "wrong_shape")
    assert (batch["f"].dtype == np.float64) == (how == "wrong_type")


@pytest.mark.parametrize("given", [{"how": "x"}, {"hook": "x"}, {"how": "nan", "hook": "setup"}])
def test_the_saboteur_refuses_what_it_cannot_do(saboteur, given):
    with pytest.raises(ValueError):
        saboteur(**given)
