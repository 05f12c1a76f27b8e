"""Shared memory in real runs: what a plugin does to it, and what its death leaves of it."""

import json

import pytest

from runs import assert_as_if_nothing_happened, plugin, table


def config(*plugins):
    return table(plugins=list(plugins), data={"batch_size": 200}, train={"max_steps": 60})  # 12.8 kB of features


def weights(run):
    return run.summary["params_sha256"]


@pytest.mark.parametrize("ranks", [1, 2])
def test_batches_travel_in_shared_memory(runs, ranks):
    run = runs.finish(config(plugin("tenant:Halve", transport="auto")), ranks)
    for rank in range(ranks):
        assert json.loads((run.directory / f"segments-{rank}.json").read_text()) >= 2, "the worker's and the host's own"


@pytest.mark.parametrize("name", ["Keeps", "WritesAfterItsReply"])
def test_a_careless_plugin_changes_nothing(runs, name):
    good = runs.finish(config(plugin("tenant:Halve")))
    careless = runs.finish(config(plugin(f"tenant:{name}")))
    assert weights(careless) == weights(good)
    assert not careless.events("error") and not careless.events("crash")


def test_a_plugin_that_writes_into_its_input_dies_of_it_alone(runs):
    good = runs.finish(config(plugin("tenant:Halve")))
    careless = runs.finish(config(plugin("tenant:WritesIntoItsInput", restarts=2, transport="auto")))
    assert weights(careless) == weights(good)
    (crash,) = careless.events("crash")
    assert (crash["hook"], crash["step"]) == ("transform_train_batch", 7), crash


def test_hosts_that_die_with_memory_in_their_hands_change_nothing(runs):
    def entries(times):
        given = {"how": "kill", "hook": "transform_train_batch", "times": times}
        return [
            plugin("tenant:Keeps", restarts=9),
            plugin("saboteur", given={**given, "step": [3, 17, 40]}, restarts=9),
            plugin("saboteur.so", "native", given={**given, "step": [5, 17, 33]}, restarts=9),
        ]

    whole = runs.finish(config(*entries(0)))
    run = runs.finish(config(*entries(1)))
    assert_as_if_nothing_happened(run, whole)
    assert len(run.events("crash")) == 6
