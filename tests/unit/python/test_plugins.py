"""The saboteur: how often and where it strikes."""

import numpy as np
import pytest

from bulkhead import Batch, context, messages
from bulkhead.context import Context, Facts


def make_ctx(run_dir="", rank=0, **call):
    facts = Facts(plugin="plug", run_dir=str(run_dir), rank=rank, is_main=rank == 0)
    return Context(facts, {**messages.default_context(), **call}, "hook", 0, lambda kind, fields: None)


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
