"""Calls to replies: each kind of hook, failures, what ctx says and what it asks for."""

import random

import numpy as np
import pytest
from conftest import table
from runner_bench import Bench

from bulkhead import Plugin, samples, testing
from bulkhead.rng import Rng, call_key


def test_a_notify_hook_gets_ctx_and_answers_with_control():
    class P(Plugin):
        def on_step_end(self, ctx):
            assert (ctx.rank, ctx.world_size, ctx.is_distributed, ctx.is_main, ctx.generation) == (1, 2, True, False, 4)
            assert (ctx.global_step, ctx.lr, ctx.metrics["loss"], ctx.best_metric) == (3, 0.5, 2.0, None)
            ctx.control.save()
            ctx.control.stop("enough")
            ctx.control.stop("too late")

    reply, _ = Bench(P).call("on_step_end", global_step=3, lr=0.5, metrics={"loss": 2.0})
    assert reply["failure"] is None and reply["seconds"] >= 0
    assert reply["control"] == {"stop": True, "stop_epoch": False, "save": True, "validate": False, "log": False,
                                "reason": "enough", "settings": []}  # fmt: skip


def test_every_field_of_ctx_can_be_read():
    class P(Plugin):
        def setup(self, ctx):
            names = """
                rank local_rank node_rank world_size local_world_size is_distributed is_main device map_loc generation
                scope epoch global_step step_in_epoch epoch_length max_steps max_epochs micro_batch lr grad_norm
                metrics best_metric project run_dir call_id replaying exception sample path rng control"""
            for name in names.split():
                getattr(ctx, name)
            with pytest.raises(AttributeError):
                ctx.global_step = 3

    assert Bench(P).call("setup")[0]["failure"] is None


def test_should_stop_is_a_stop_with_a_reason():
    class P(Plugin):
        def should_stop(self, ctx):
            if ctx.global_step == 2:
                ctx.control.stop("my own")
            return np.bool_(ctx.global_step > 0)

    bench = Bench(P)
    assert bench.call("should_stop", global_step=0)[0]["control"]["stop"] is False
    assert bench.call("should_stop", global_step=1)[0]["control"]["reason"] == "plug said should_stop"
    assert bench.call("should_stop", global_step=2)[0]["control"]["reason"] == "my own"


def test_control_and_logs_are_inert_after_the_call():
    class P(Plugin):
        transient = {"ctx"}

        def setup(self, ctx):
            self.ctx = ctx

        def on_step_end(self, ctx):
            self.ctx.control.stop("late")
            self.ctx.log("late")
            self.ctx.progress()

    bench = Bench(P)
    bench.call("setup")
    assert bench.call("on_step_end")[0]["control"]["stop"] is False and len(bench.sent) == 2


def test_logs_and_progress_come_before_the_reply():
    class P(Plugin):
        def on_step_end(self, ctx):
            ctx.log("hello")
            ctx.log_metrics({"a": np.float32(0.5), "b": 2})
            ctx.progress({"done": np.int64(3)})

    bench = Bench(P)
    bench.call("on_step_end")
    assert [message for message, _ in bench.sent[:3]] == [
        {"type": "note", "generation": 4, "seq": 5, "text": "hello", "metrics": {}},
        {"type": "note", "generation": 4, "seq": 5, "text": "", "metrics": {"a": 0.5, "b": 2.0}},
        {"type": "progress", "generation": 4, "seq": 5, "detail": {"done": 3}},
    ]


@table(
    "metrics, message",
    [
        ({"loss": "x"}, 'ctx.log_metrics: "loss" is a str, not a number'),
        ({"loss": np.zeros(2)}, 'ctx.log_metrics: "loss" has more than one element; give a single number'),
        ({"loss": float("nan")}, 'ctx.log_metrics: "loss" is nan; only finite numbers are logged'),
        ({1: 2.0}, "ctx.log_metrics: the name 1 is not a string"),
    ],
)
def test_wrong_metrics_are_refused_with_a_sentence(metrics, message):
    class P(Plugin):
        def on_step_end(self, ctx):
            ctx.log_metrics(metrics)

    assert Bench(P).call("on_step_end")[0]["failure"]["message"] == message


BATCH = [("x", "float32", (2,), np.float32([1, 2]).tobytes()), ("y", "int64", (1,), np.int64([3]).tobytes())]


@table("give", [None, "batch", "dict"])
def test_a_transform_answers_with_what_changed_and_what_was_kept(give):
    class P(Plugin):
        def transform_train_batch(self, batch, ctx):
            if give == "dict":
                return {"x": batch["x"] + 1, "y": batch["y"]}
            batch.mutable("x")[...] += 1
            return batch if give else None

    reply, payloads = Bench(P).call("transform_train_batch", BATCH)
    assert reply["batch"] == [{"name": "x", "dtype": "float32", "shape": [2]}] and reply["kept"] == ["y"]
    assert np.frombuffer(payloads[0], np.float32).tolist() == [2, 3]


def test_a_transform_that_returns_something_else_fails():
    class P(Plugin):
        def transform_train_batch(self, batch, ctx):
            return [1]

    failure = Bench(P).call("transform_train_batch", BATCH)[0]["failure"]
    assert failure["type"] == "TypeError"
    assert failure["message"] == (
        "transform_train_batch returned a list; it must return nothing, the batch, or a dict of arrays"
    )


def test_an_exception_is_an_answer_and_nothing_of_the_call_is_left():
    class Odd(Exception):
        def __str__(self):
            raise RuntimeError

    class P(Plugin):
        def on_step_end(self, ctx):
            ctx.control.stop()
            raise (ValueError("bad \udcff"), Odd(), GeneratorExit("g"))[ctx.global_step]

    bench = Bench(P)
    reply, _ = bench.call("on_step_end")
    assert reply["control"]["stop"] is False
    failure = reply["failure"]
    assert failure["type"] == "ValueError" and failure["message"] == "bad ?"
    assert "in on_step_end" in failure["traceback"] and "/runner.py" not in failure["traceback"]
    assert bench.call("on_step_end", global_step=1)[0]["failure"]["message"] == "an exception that cannot be printed"
    assert bench.call("on_step_end", global_step=2)[0]["failure"]["type"] == "GeneratorExit"


class Expected(Exception):
    pass


class Child(Expected):
    pass


@table("error, fatal", [(Expected("e"), True), (Child("c"), True), (ValueError("v"), False)])
@table("hook", ["setup", "on_step_end", "transform_train_batch", "transform_caption", "state_dict"])
def test_an_exception_of_raises_is_fatal_with_its_subclasses(hook, error, fatal):
    class P(Plugin):
        raises = (Expected,)

    def method(self, *_):
        raise error

    setattr(P, hook, method)
    batch = testing.tensors_of(samples.batch_of(None, ["a"], ["p"], [0])) if hook == "transform_caption" else BATCH
    reply, _ = Bench(P).call(hook, batch)
    assert (reply["fatal"], reply["failure"]["message"]) == (fatal, str(error))


def test_a_call_of_a_rank_that_shares_the_process_says_whose_it_is():
    class P(Plugin):
        def on_step_end(self, ctx):
            self.seen = ctx.rank, ctx.local_rank, ctx.device, ctx.is_main, ctx.map_loc

    bench = Bench(P)
    bench.call("on_step_end", rank=0, local_rank=2, device="cuda:2")
    assert bench.loaded.plugin.seen == (0, 2, "cuda:2", True, {"cuda:0": "cuda:2"})
    bench.call("on_step_end")
    assert bench.loaded.plugin.seen == (1, 0, "cpu", False, {})


def test_on_exception_is_told_why():
    class P(Plugin):
        def on_exception(self, ctx):
            ctx.log(ctx.exception)

    bench = Bench(P)
    bench.call("on_exception", exception="ema: ValueError: no")
    assert bench.sent[0][0]["text"] == "ema: ValueError: no"


# ----- Configure -----


def configured(give, **attributes):
    class P(Plugin):
        def configure(self, config, ctx):
            return give(config, ctx)

    for name, value in attributes.items():
        setattr(P, name, value)
    return Bench(P).runner.configure({"name": "run", "optimizer": {"lr": 0.1}})


def test_configure_gives_its_changes_as_they_are():
    def give(config, ctx):
        return {"optimizer.lr": config["optimizer"]["lr"] / 2, "train": {"accumulate": np.int64(4)}, "list": (1, None)}

    assert configured(give) == {
        "type": "configured", "generation": 4, "failure": None,
        "changes": {"optimizer.lr": 0.05, "train": {"accumulate": 4}, "list": [1, None]}}  # fmt: skip


def test_configure_may_change_nothing():
    assert configured(lambda config, ctx: None)["changes"] == {}
    assert configured(lambda config, ctx: config.clear())["failure"] is None


def test_configure_is_seeded_as_itself(capsys):
    drawn = configured(lambda config, ctx: {"raw": [random.random(), ctx.rng.random()]})["changes"]["raw"]
    key = call_key(7, "plug", 1, "configure", 0, 0)
    assert drawn == [random.Random(key[0]).random(), Rng.of_key(key).random()]
    configured(lambda config, ctx: ctx.log("halved"))
    assert capsys.readouterr().out == "halved\n"


@table(
    "changes, message",
    [
        ([1], "configure returned a list; it must return nothing or a dict of changes"),
        ({"a": object()}, "configure's changes: an object cannot be sent; use numbers, strings, lists and dicts"),
        ({1: 2}, "configure's changes: the key 1 is not a string"),
        ({"a": 2**70}, f"configure's changes: {2**70} does not fit in 64 bits"),
        ({"a": ["x" * 200_000] * 30}, "a message of 6000"),
    ],
)
def test_changes_that_cannot_be_sent_are_a_type_error(changes, message):
    answer = configured(lambda config, ctx: changes)
    assert answer["changes"] == {} and answer["failure"]["type"] == "TypeError"
    assert answer["failure"]["message"].startswith(message)


def test_what_configure_raises_is_told_and_there_is_nobody_to_ask():
    assert configured(lambda config, ctx: config["modle"])["failure"]["type"] == "KeyError"
    assert "is not for configure" in configured(lambda config, ctx: ctx.all_gather(1))["failure"]["message"]
    assert "does not know" in Bench(Plugin).call("configure")[0]["failure"]["message"]


def test_a_huge_traceback_is_cut():
    class P(Plugin):
        def setup(self, ctx):
            raise ValueError("x" * 500_000)

    failure = Bench(P).call("setup")[0]["failure"]
    assert len(failure["message"]) <= 16 << 10 and len(failure["traceback"]) <= 64 << 10


@table("error", [SystemExit(0), KeyboardInterrupt()])
def test_what_ends_a_process_is_not_caught(error):
    class P(Plugin):
        def on_step_end(self, ctx):
            raise error

    bench = Bench(P)
    with pytest.raises(type(error)):
        bench.call("on_step_end")
    assert bench.sent == []


def test_an_unknown_hook_is_a_failure():
    class P(Plugin):
        pass

    assert "does not know the hook" in Bench(P).call("on_moon")[0]["failure"]["message"]
