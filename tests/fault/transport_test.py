"""`transport: socket`, the way to hosts on other machines, against the ring and shared memory: nothing that a run comes
to depends on it, whatever dies on the way."""

import pytest

from runs import assert_as_if_nothing_happened, plugin, table
from survival_test import GROUPS, assert_crash_is_told, config_of


def over_sockets(config, which=slice(None)):
    """The same run with these of its plugins called through sockets."""
    entries = list(config["plugins"])
    for index in range(len(entries))[which]:
        entries[index] = {**entries[index], "transport": "socket"}
    return {**config, "plugins": entries}


def chain():
    """Transforms in both languages, with state and without, over 12.8 kB of features; and a state to save."""
    return table(
        plugins=[
            plugin("tenant:Halve", prefetch=3),
            plugin("saboteur.so", "native", given={"times": 0}),
            plugin("tenant:Keeps"),
            plugin("wander:Wander"),
        ],
        data={"batch_size": 200},
    )


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_chain_trains_the_same_weights(runs, ranks):
    shared = runs.finish(chain(), ranks)
    for which in (slice(None), slice(0, None, 2), slice(1, None, 2)):
        run = runs.finish(over_sockets(chain(), which), ranks)
        assert_as_if_nothing_happened(run, shared)
        assert not run.events("error") and not run.events("crash")


@pytest.mark.parametrize("group", ["signals", "garbage", "hangs", "often", "saves"])
def test_deaths_change_nothing(runs, group):
    ranks, faults = GROUPS[group]
    shared = runs.finish(config_of(group, times=0), ranks)
    run = runs.finish(over_sockets(config_of(group, times=1)), ranks)
    assert_as_if_nothing_happened(run, shared)
    for number, one in enumerate(faults):
        assert_crash_is_told(run, f"saboteur{number}", one)
