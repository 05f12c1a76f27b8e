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


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_batch_given_away_and_half_changed_is_made_again(runs, ranks):
    def entries(times):
        return config(
            plugin("tenant:DiesHalfway", given={"steps": [2, 3, 21, 40], "times": times}, restarts=9, transport="auto"),
            plugin("wander:Wander"),
        )

    whole = runs.finish(entries(0), ranks)
    run = runs.finish(entries(1), ranks)
    assert_as_if_nothing_happened(run, whole)
    assert len(run.events("crash")) == 4 * ranks
    for rank in range(ranks):
        assert int((run.directory / f"in_place-{rank}").read_text()) > 50, "it is the rank's memory that it changes"


@pytest.mark.parametrize("policy", ["identity", "skip"])
def test_a_batch_given_away_that_kills_for_good_is_what_it_was(runs, policy):
    """Trained on unchanged, or left out and kept: as if the plugin had died before it touched anything."""

    def run(before):
        given = {"steps": [11], "times": 2, "before": before}
        return runs.finish(
            config(plugin("tenant:DiesHalfway", given=given, restarts=9, on_poison=policy, transport="auto"))
        )

    halfway, untouched = run(before=False), run(before=True)
    assert weights(halfway) == weights(untouched)
    kept = [next((run.directory / "dead_letters").glob("*.safetensors")) for run in (halfway, untouched)]
    assert kept[0].read_bytes() == kept[1].read_bytes()
