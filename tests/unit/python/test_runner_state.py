"""What a plugin keeps from call to call, and what it draws: state and seeds, as a Runner sees to them."""

import random

import numpy as np
from runner_bench import Bench

from bulkhead import Plugin, state
from bulkhead.rng import Rng, call_key

# ----- State -----


class Counter(Plugin):
    def __init__(self):
        self.n = np.zeros(3)

    def on_step_end(self, ctx):
        self.n += 1


def test_state_goes_from_one_incarnation_to_the_next():
    first, second = Bench(Counter), Bench(Counter)
    first.call("on_step_end")
    reply, payloads = first.call("state_dict")
    assert reply["has_state"] is True and reply["state"] == {"bytes": len(payloads[0])}
    second.call("load_state_dict", state=payloads[0])
    assert second.loaded.plugin.n.tolist() == [1, 1, 1]


def test_own_state_may_be_anything_that_can_be_carried():
    class P(Plugin):
        def state_dict(self):
            return (1, {"a": np.float32([2])})

        def load_state_dict(self, given):
            self.given = given

    bench = Bench(P)
    _, payloads = bench.call("state_dict")
    bench.call("load_state_dict", state=payloads[0])
    assert bench.loaded.plugin.given[0] == 1 and bench.loaded.plugin.given[1]["a"].tolist() == [2]


def test_none_and_stateless_have_no_state():
    class Nothing(Plugin):
        def state_dict(self, ctx):
            return None

    class Stateless(Counter):
        stateless = True

    for cls in (Nothing, Stateless):
        reply, payloads = Bench(cls).call("state_dict")
        assert reply["has_state"] is False and reply["state"] == {"bytes": 0} and payloads == []
    bench = Bench(Stateless)
    bench.call("load_state_dict", state=state.pack({"n": 5}))
    assert bench.loaded.plugin.n.tolist() == [0, 0, 0]


def test_a_state_that_cannot_be_carried_is_a_failure():
    class P(Plugin):
        def state_dict(self):
            return {"a": object()}

    failure = Bench(P).call("state_dict")[0]["failure"]
    assert (failure["type"], failure["message"]) == (
        "TypeError", "state_dict returned an object, which cannot be carried without pickle")  # fmt: skip


def test_a_large_state_travels_in_pieces():
    class P(Plugin):
        def __init__(self):
            self.big = np.zeros(3 << 20, np.uint8)

    _, payloads = Bench(P).call("state_dict")
    assert [len(piece) for piece in payloads[:3]] == [1 << 20] * 3
    assert state.unpack(b"".join(payloads))["big"].nbytes == 3 << 20


# ----- Seeds -----


class Draws(Plugin):
    transient = {"last"}

    def on_step_end(self, ctx):
        self.last = random.random(), np.random.rand(), ctx.rng.next_u64()


def test_a_call_made_again_draws_the_same():
    bench = Bench(Draws)

    def draw(**context):
        bench.call("on_step_end", **context)
        return bench.loaded.plugin.last

    first = draw(global_step=3)
    other = draw(global_step=4)
    assert draw(global_step=3) == first and all(a != b for a, b in zip(first, other))
    assert first[2] == Rng.of_key(call_key(7, "plug", 1, "on_step_end", 3, 0)).next_u64()
    bench.call("on_step_end", seed_rank=0, global_step=3)
    assert bench.loaded.plugin.last != first


def test_a_class_that_is_not_seeded_is_left_alone_but_has_ctx_rng():
    bench = Bench(Draws, seeded=False)
    random.seed(5)
    expected = random.Random(5).random()
    bench.call("on_step_end")
    assert bench.loaded.plugin.last[0] == expected
    assert bench.loaded.plugin.last[2] == Rng.of_key(call_key(7, "plug", 1, "on_step_end", 0, 0)).next_u64()
