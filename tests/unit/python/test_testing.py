"""bulkhead.testing: a hook without a run, through the code that the host runs."""

import random

import numpy as np
import pytest

import bulkhead
from bulkhead import Plugin, loader
from bulkhead.testing import Asked, load, run_hook


class Guard(Plugin):
    """Stops at a high loss."""

    raises = (OverflowError,)

    def __init__(self, limit: float = 2.0):
        self.limit, self.rank = limit, bulkhead.facts().rank
        self.drawn = random.random()

    def on_step_end(self, ctx):
        ctx.log(f"step {ctx.global_step}")
        ctx.log_metrics({"over": ctx.metrics["loss"] - self.limit})
        ctx.progress({"at": 1})
        if ctx.metrics["loss"] > 100:
            raise OverflowError("far over")
        if ctx.metrics["loss"] > self.limit:
            ctx.control.stop("too high")
            ctx.set("lr", 0)

    def transform_train_batch(self, batch, ctx):
        batch.mutable("x")[...] *= 2
        batch["new"] = [True]
        del batch["y"]

    def should_stop(self, ctx):
        return ctx.metrics["loss"] > 1


def test_says_what_a_hook_asked_for_and_logged():
    result = run_hook(load(Guard, limit=1), "on_step_end", metrics={"loss": 3}, global_step=7)
    assert result.control == Asked(stop=True, reason="too high", settings={"lr": 0.0})
    assert (result.logs, result.metrics, result.progress) == (["step 7"], {"over": 2.0}, [{"at": 1}])
    quiet = run_hook(load(Guard), "on_step_end", metrics={"loss": 1})
    assert not quiet.control and quiet.failure is None


def test_a_plugin_is_constructed_as_the_host_does_it(tmp_path):
    assert load(Guard, limit=3, facts={"rank": 2}).rank == 2
    assert type(load(Guard, limit=3).limit) is float
    assert load(Guard).drawn == load(Guard).drawn
    with pytest.raises(loader.Refusal, match='has no argument "limt"; did you mean "limit"'):
        load(Guard, limt=3)
    (tmp_path / "p.py").write_text("from bulkhead import Plugin\nclass P(Plugin):\n  def __init__(self, a: int): self.a = a")
    for use in ("p.py", "p.py:P"):
        assert load(f"{tmp_path}/{use}", a=3).a == 3
    with pytest.raises(loader.Refusal, match="does not exist"):
        load(f"{tmp_path}/no.py")


def test_an_exception_is_raised_here_unless_it_is_wanted_as_an_answer():
    with pytest.raises(OverflowError, match="far over"):
        run_hook(load(Guard), "on_step_end", metrics={"loss": 200})
    result = run_hook(load(Guard), "on_step_end", metrics={"loss": 200}, raise_errors=False)
    assert (result.failure["type"], result.fatal) == ("OverflowError", True) and not result.control


def test_a_batch_comes_out_as_the_rank_would_see_it():
    x = np.float32([1, 2])
    result = run_hook(load(Guard), "transform_train_batch", batch={"x": x, "y": [1], "z": np.int64([[5]])})
    assert x.tolist() == [1, 2] and sorted(result.changed) == ["new", "x"]
    assert {name: array.tolist() for name, array in result.batch.items()} == {"z": [[5]], "x": [2, 4], "new": [True]}


def test_should_stop_has_a_reason():
    assert run_hook(load(Guard), "should_stop", metrics={"loss": 2}, plugin="guard").control.reason == (
        "guard said should_stop")  # fmt: skip


def test_state_goes_from_one_plugin_to_another():
    first, second = load(Guard, limit=5), load(Guard)
    run_hook(second, "load_state_dict", state=run_hook(first, "state_dict").value)
    assert second.limit == 5


def test_the_seeds_are_those_of_the_call_and_the_process_gets_its_own_back():
    class Draws(Plugin):
        def on_step_end(self, ctx):
            ctx.log_metrics({"a": random.random(), "b": np.random.rand(), "c": ctx.rng.random()})

    random.seed(3)
    np.random.seed(3)
    before = random.getstate(), np.random.get_state()[1].tolist()
    first = run_hook(Draws(), "on_step_end", global_step=1).metrics
    assert run_hook(Draws(), "on_step_end", global_step=1).metrics == first
    assert run_hook(Draws(), "on_step_end", global_step=2).metrics != first
    assert run_hook(Draws(), "on_step_end", global_step=1, run_seed=9).metrics != first
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    with pytest.raises(RuntimeError, match="known only inside a plugin host"):
        bulkhead.facts()


@pytest.mark.parametrize(
    "arguments, kind, message",
    [
        (("on_step_ned", {}), ValueError, 'there is no hook "on_step_ned"; did you mean "on_step_end"?'),
        (("on_step_end", {"global_stp": 1}), TypeError,
         'run_hook has no argument "global_stp"; did you mean "global_step"?'),
    ],
)  # fmt: skip
def test_names_that_are_none_are_refused(arguments, kind, message):
    hook, about = arguments
    with pytest.raises(kind) as caught:
        run_hook(load(Guard), hook, **about)
    assert str(caught.value) == message


def test_a_class_that_the_host_would_refuse_is_refused():
    class Wrong(Plugin):
        def on_step_ned(self, ctx):
            pass

    with pytest.raises(loader.Refusal, match='there is no hook "on_step_ned"'):
        run_hook(Wrong(), "setup")


def test_gathered_values_of_the_wrong_number_of_ranks_are_said():
    class Gathers(Plugin):
        def on_step_end(self, ctx):
            ctx.all_gather(1)

    with pytest.raises(bulkhead.AskFailed, match="was given 1 values to gather for 3 ranks"):
        run_hook(Gathers(), "on_step_end", world_size=3, gather=[1])
