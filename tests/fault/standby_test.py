"""The process that stands by for a host, and the zygote that hosts of Python plugins are born from."""

import os
import signal

import pytest

from runs import assert_as_if_nothing_happened, plugin, table


def entries(**keys):
    """Both languages; each keeps a state that it changes batches by."""
    return [
        plugin("wander:Wander", "python", restarts=20, **keys),
        plugin("saboteur.so", "native", given={"times": 0}, restarts=20, **keys),
    ]


PLACES = {"python": (0, 0), "native": (1, 0)}


def newest(run, name):
    """Of the plugin's incarnations the one that became ready last: its event."""
    return [line for line in run.events(plugin=name) if line["event"] in ("ready", "restart")][-1]


@pytest.mark.parametrize("name", ["python", "native"])
def test_it_takes_over_and_is_replaced(runs, name):
    gate = runs.gate(step=12)
    run = runs.start(table(plugins=[*entries(), gate.plugin]))
    gate.reached(run)
    for _ in range(3):
        standby = run.wait_for(lambda: run.standbys().get(PLACES[name]), "a process stands by")
        serving = run.hosts()[PLACES[name]]
        assert newest(run, name)["pid"] == serving != standby
        os.kill(serving, signal.SIGKILL)
        run.wait_for(lambda: newest(run, name)["pid"] == standby, "it has taken over")
    gate.open()
    run.wait()
    reference = runs.finish(table(plugins=[*entries(), gate.plugin]))
    assert_as_if_nothing_happened(run, reference)
    assert run.of_plugin(name)["starts"] == 4


def test_its_own_death_is_nobodys_fault(runs):
    gate = runs.gate(step=12)
    run = runs.start(table(plugins=[*entries(), gate.plugin]))
    gate.reached(run)
    for name, place in PLACES.items():
        standby = run.wait_for(lambda place=place: run.standbys().get(place), "a process stands by")
        os.kill(standby, signal.SIGKILL)
        run.wait_for(
            lambda place=place, standby=standby: run.standbys().get(place) not in (None, standby), f"another for {name}"
        )
    gate.open()
    run.wait()
    assert run.events("crash") == [] and run.events("restart") == []
    assert all(entry["starts"] == 1 and entry["crashes"] == [] for entry in run.summary["plugins"])


def test_there_is_none_where_it_is_not_wanted(runs):
    gate = runs.gate(step=29)  # a second and more after the start
    run = runs.start(table(plugins=[*entries(standby=False), gate.plugin]))
    gate.reached(run)
    waits = run.wait_for(lambda: run.standbys().get((2, 0)), "the gate's own")
    assert set(run.standbys().values()) == {waits}
    os.kill(run.hosts()[0, 0], signal.SIGKILL)
    run.wait_for(lambda: newest(run, "python")["generation"] == 2, "it is started again all the same")
    gate.open()
    run.wait()


def test_without_its_zygote_a_plugin_is_started_as_a_program(runs):
    gate = runs.gate(step=12)
    run = runs.start(table(plugins=[*entries(), gate.plugin]))
    gate.reached(run)
    os.kill(run.zygotes()["wander.py"], signal.SIGKILL)
    for _ in range(2):  # the one that stands by, then one that nobody forked
        before = newest(run, "python")["pid"]
        os.kill(before, signal.SIGKILL)
        run.wait_for(lambda before=before: newest(run, "python")["pid"] != before, "the next one")
    gate.open()
    run.wait()
    reference = runs.finish(table(plugins=[*entries(), gate.plugin]))
    assert_as_if_nothing_happened(run, reference)


def test_hosts_of_two_ranks_are_born_from_one_zygote(runs):
    gate = runs.gate(step=12)
    run = runs.start(table(plugins=[*entries(), gate.plugin]), 2)
    gate.reached(run)
    assert set(run.zygotes()) == {"wander.py", "gate.py"}
    assert len({run.hosts()[0, rank] for rank in (0, 1)}) == 2
    gate.open()
    run.wait()
