"""What a plugin asks of the run and of the rank: settings, values of the other ranks, parameters."""

import numpy as np
import pytest

from bulkhead import AskFailed, Plugin, hooks
from bulkhead.testing import run_hook

WEIGHTS = {"wte": np.ones((2, 3), np.float32), "bias": np.zeros(3, np.float32)}


def asking(hook, do, steers=True):
    """A plugin whose `hook` does `do(ctx)` and keeps what came back."""

    def method(self, *arguments):
        self.got = do(arguments[-1])

    return type("P", (Plugin,), {hook: method, "steers": steers, "transient": {"got"}})()


# ----- Settings -----


def test_settings_travel_with_control_and_the_last_said_counts():
    def do(ctx):
        ctx.set("grad_accum", np.int64(4))
        ctx.set("lr", 0.5)
        ctx.set("lr", None)
        ctx.set("log_every", 0)

    result = run_hook(asking("on_epoch_start", do), "on_epoch_start")
    assert result.control.settings == {"grad_accum": 4.0, "lr": None, "log_every": 0.0}


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("momentum", 1, "ctx.set: 'momentum' cannot be set; settable are grad_accum, log_every, lr, save_every, "
                        "validate_every"),
        ("save_evry", 1, "ctx.set: 'save_evry' cannot be set; settable are grad_accum, log_every, lr, save_every, "
                         'validate_every; did you mean "save_every"?'),
        (3, 1, "ctx.set: 3 cannot be set; settable are grad_accum, log_every, lr, save_every, validate_every"),
        ("grad_accum", 0, "ctx.set: grad_accum must be a whole number of 1 or more, not 0"),
        ("grad_accum", 2.5, "ctx.set: grad_accum must be a whole number of 1 or more, not 2.5"),
        ("grad_accum", None, "ctx.set: grad_accum must be a whole number of 1 or more, not None"),
        ("grad_accum", True, "ctx.set: grad_accum must be a whole number of 1 or more, not True"),
        ("log_every", -1, "ctx.set: log_every must be a whole number of 0 or more, not -1"),
        ("save_every", "2", "ctx.set: save_every must be a whole number of 0 or more, not '2'"),
        ("lr", -0.1, "ctx.set: lr must be a finite number of 0 or more, or None, not -0.1"),
        ("lr", float("nan"), "ctx.set: lr must be a finite number of 0 or more, or None, not nan"),
        ("lr", float("inf"), "ctx.set: lr must be a finite number of 0 or more, or None, not inf"),
        ("lr", "fast", "ctx.set: lr must be a finite number of 0 or more, or None, not 'fast'"),
    ],
)  # fmt: skip
def test_other_settings_and_values_are_refused_with_a_sentence(name, value, message):
    with pytest.raises(ValueError) as caught:
        run_hook(asking("on_step_end", lambda ctx: ctx.set(name, value)), "on_step_end")
    assert str(caught.value) == message


def test_settings_are_inert_after_the_call():
    plugin = asking("on_step_end", lambda ctx: ctx)
    run_hook(plugin, "on_step_end")
    plugin.got.set("lr", 1.0)
    plugin.got.load_weights
    assert plugin.got.control.asked() == {}
    with pytest.raises(RuntimeError, match="this ctx is over: its call of on_step_end has returned"):
        plugin.got.all_gather(1)


# ----- All-gather -----


def test_values_come_in_rank_order_and_a_rank_without_the_plugin_gives_none():
    plugin = asking("on_step_end", lambda ctx: ctx.all_gather({"loss": np.float32(ctx.rank), "at": (1, 2)}))
    run_hook(plugin, "on_step_end", rank=1, gather=["zero", "mine", None])
    assert plugin.got == ["zero", {"loss": np.float32(1), "at": (1, 2)}, None]


def test_several_questions_of_one_call_are_answered_one_by_one():
    plugin = asking("on_epoch_end", lambda ctx: [ctx.all_gather(n) for n in (1, 2)])
    run_hook(plugin, "on_epoch_end", world_size=2, gather=lambda mine: [mine, mine * 10])
    assert plugin.got == [[1, 10], [2, 20]]


def test_in_job_scope_there_is_nobody_else():
    plugin = asking("on_step_end", lambda ctx: ctx.all_gather([1, 2]))
    run_hook(plugin, "on_step_end", scope="job", world_size=4, gather=lambda mine: pytest.fail("nobody to ask"))
    assert plugin.got == [[1, 2]]


def test_what_cannot_be_carried_is_refused_before_anybody_is_asked():
    with pytest.raises(TypeError, match="ctx.all_gather was given an object, which cannot be carried without pickle"):
        run_hook(asking("on_step_end", lambda ctx: ctx.all_gather(object())), "on_step_end")


def gathers(hook):
    kind = hooks.HOOKS[hook]
    return kind == hooks.NOTIFY and hook not in ("configure", "setup", "on_exception")


@pytest.mark.parametrize("hook", hooks.HOOKS)
def test_only_hooks_that_all_ranks_call_together_may_gather(hook):
    plugin = asking(hook, lambda ctx: ctx.all_gather(3))
    inputs = {"image": np.zeros((1, 1, 3), np.uint8)} if hooks.HOOKS[hook] == hooks.SAMPLE else {}
    result = run_hook(plugin, hook, raise_errors=False, **inputs)
    if gathers(hook):
        assert plugin.got == [3]
    else:
        assert result.failure["type"] == "RuntimeError" and f"is not for {hook}," in result.failure["message"]


def test_neither_node_scope_nor_an_observer_may_gather():
    def message(**about):
        with pytest.raises(RuntimeError) as caught:
            run_hook(asking("on_step_end", lambda ctx: ctx.all_gather(1), **about.pop("of", {})), "on_step_end", **about)
        return str(caught.value)

    assert message(scope="node").startswith("ctx.all_gather is not for scope node")
    assert message(of={"steers": False}) == (
        "ctx.all_gather is not for a plugin with `steers = False`: nothing waits for it"
    )


def test_what_the_rank_cannot_answer_is_raised_where_the_plugin_asked():
    plugin = asking("on_step_end", lambda ctx: ctx.weights())
    with pytest.raises(AskFailed, match="the hook asked for weights"):
        run_hook(plugin, "on_step_end")


# ----- Weights -----

SEEING = {"on_step_start", "on_optimizer_step_end", "on_step_end", "should_stop", "on_log", *hooks.WAITED}


@pytest.mark.parametrize("hook", [hook for hook, kind in hooks.HOOKS.items() if kind == hooks.NOTIFY])
def test_weights_are_shown_where_parameters_stand_still(hook):
    plugin = asking(hook, lambda ctx: ctx.weights())
    result = run_hook(plugin, hook, weights=WEIGHTS, raise_errors=False)
    if hook in SEEING:
        assert list(plugin.got) == ["wte", "bias"] and plugin.got["wte"].tolist() == [[1, 1, 1]] * 2
        with pytest.raises(ValueError):
            plugin.got["wte"][0] = 5
    else:
        assert result.failure["message"].startswith(f"ctx.weights is not for {hook}, during which parameters change")


@pytest.mark.parametrize("hook", [hook for hook, kind in hooks.HOOKS.items() if kind == hooks.NOTIFY])
def test_weights_are_taken_back_where_the_ranks_wait(hook):
    plugin = asking(hook, lambda ctx: ctx.load_weights({"bias": np.float32([1, 2, 3])}))
    result = run_hook(plugin, hook, raise_errors=False)
    if hook in hooks.WAITED:
        assert result.weights["bias"].tolist() == [1, 2, 3] and not result.control
    else:
        assert result.failure["message"].startswith(f"ctx.load_weights is not for {hook}, which the ranks do not wait")


@pytest.mark.parametrize(
    "give, kind, message",
    [
        ({"bais": [1.0]}, KeyError, 'ctx.load_weights: the model has no "bais"; did you mean "bias"?'),
        ({"bias": np.zeros(3)}, ValueError, 'ctx.load_weights: "bias" must be float32 [3], not float64 [3]'),
        ({"wte": np.zeros((3, 2), np.float32)}, ValueError,
         'ctx.load_weights: "wte" must be float32 [2, 3], not float32 [3, 2]'),
        ({"wte": ["a"]}, TypeError, 'ctx.load_weights: "wte" has type <U1, which is not carried'),
        ({1: [2.0]}, TypeError, "ctx.load_weights: the name 1 is not a string"),
    ],
)  # fmt: skip
def test_weights_of_another_shape_are_refused_where_they_are_given(give, kind, message):
    def do(ctx):
        ctx.weights()
        ctx.load_weights(give)

    with pytest.raises(kind) as caught:
        run_hook(asking("on_epoch_end", do), "on_epoch_end", weights=WEIGHTS)
    assert message in str(caught.value)


def test_after_an_exception_no_weights_are_given():
    def do(ctx):
        ctx.load_weights(WEIGHTS)
        raise ValueError("after all")

    assert run_hook(asking("on_epoch_end", do), "on_epoch_end", raise_errors=False).weights == {}
