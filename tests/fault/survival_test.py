"""A plugin dies, hangs or lies in every way, at every hook, in both languages: the weights are those of a run in which
nothing happened, and no rank noticed."""

import os
import signal

import pytest

from runs import assert_as_if_nothing_happened, plugin, table

PYTHON, NATIVE = "saboteur", "saboteur.so"


def fault(use, how, hook, step=5, rank=0):
    return {"use": use, "how": how, "hook": hook, "step": step, "rank": rank}


# Several at once, so that their restarts meet.  Between them: each way to fail, each hook, both languages.
GROUPS = {
    "signals": (1, [
        fault(PYTHON, "segv", "on_step_end"),
        fault(NATIVE, "kill", "transform_train_batch", 9),
        fault(PYTHON, "abort", "on_epoch_start", 0),
        fault(NATIVE, "segv", "on_validate_end", 20),
    ]),
    "start": (2, [
        fault(PYTHON, "exit0", "__init__"),
        fault(NATIVE, "segv", "__init__", rank=1),
        fault(PYTHON, "kill", "setup", 0, rank=1),
        fault(NATIVE, "abort", "setup", 0),
    ]),
    "exits": (1, [
        fault(PYTHON, "exit3", "state_dict", 10),
        fault(NATIVE, "exit0", "should_stop", 8),
        fault(PYTHON, "exit0", "transform_train_batch", 13),
        fault(NATIVE, "exit3", "on_step_start", 12),
    ]),
    "garbage": (2, [
        fault(PYTHON, "garbage", "on_step_end", rank=1),
        fault(NATIVE, "garbage", "transform_train_batch", 9),
        fault(PYTHON, "garbage", "on_validate_start", 10),
        fault(NATIVE, "garbage", "on_save_start", 20, rank=1),
    ]),
    "hangs": (1, [
        fault(PYTHON, "hang", "transform_train_batch", 7),
        fault(NATIVE, "hang", "on_step_end", 7),
        fault(PYTHON, "stop", "should_stop", 8),
        fault(NATIVE, "stop", "on_validate_end", 10),
    ]),
    "saves": (2, [
        fault(PYTHON, "kill", "on_save_start", 10),
        fault(NATIVE, "kill", "state_dict", 20, rank=1),
        fault(PYTHON, "segv", "state_dict", 30, rank=1),
        fault(NATIVE, "terminate", "on_save_end", 30),
    ]),
    "edges": (2, [
        fault(PYTHON, "segv", "on_train_start", 0),
        fault(NATIVE, "kill", "on_train_end", 30, rank=1),
        fault(PYTHON, "abort", "on_validate_step_end", 20),
        fault(NATIVE, "abort", "on_epoch_end", 25, rank=1),
    ]),
    "often": (1, [
        fault(PYTHON, "kill", "transform_train_batch", [0, 1, 6, 15]),
        fault(NATIVE, "segv", "transform_train_batch", [0, 3, 6, 21]),
        fault(NATIVE, "exit3", "on_step_end", [2, 3, 15]),
    ]),
}  # fmt: skip
SIGNALS = {"segv": "SIGSEGV", "abort": "SIGABRT", "kill": "SIGKILL", "terminate": "SIGABRT"}


def saboteurs(faults, times, deadline):
    entries = []
    for number, one in enumerate(faults):
        given = {key: one[key] for key in ("how", "hook", "step", "rank")}
        given["times"] = times
        keys = {"deadline": "2s"} if deadline else {}
        entries.append(plugin(one["use"], f"saboteur{number}", given=given, restarts=6, prefetch=number, **keys))
    return list(reversed(entries))  # prefetch 3, 2, 1, 0: a chain of transforms of different depths


def config_of(group, times):
    ranks, faults = GROUPS[group]
    # An epoch is 25 steps on 2 ranks as on 1 with two micro-batches, which saboteur.py counts one by one.
    train = {"accumulate": 2 if group == "signals" else 1}
    return table(train=train, plugins=saboteurs(faults, times, deadline=group == "hangs"))


def assert_crash_is_told(run, name, one):
    rank = one["rank"]
    told = run.of_plugin(name, rank)
    steps = one["step"] if isinstance(one["step"], list) else [one["step"]]
    assert len(told["crashes"]) == len(steps), run.account()
    assert told["starts"] == 1 + len(steps) and told["state"] == "ready"
    crash = told["crashes"][0]
    how = one["how"]
    if how in SIGNALS:
        assert crash["signal"] == SIGNALS[how], crash
    elif how.startswith("exit"):
        assert crash["exit"] == int(how[4:]), crash
    else:
        assert crash["reason"].startswith("garbage" if how == "garbage" else "hang"), crash
    if (one["use"], how) == (NATIVE, "garbage"):
        return  # it goes to the coordinator too, which sees it whenever it looks
    assert crash["hook"] == one["hook"], crash
    if one["hook"] not in ("__init__", "setup"):
        assert sorted(crash["step"] for crash in told["crashes"]) == steps, told["crashes"]
    kind = "hang" if how in ("hang", "stop") else "crash"
    lines = run.events(kind, plugin=name, rank=rank)
    assert len(lines) == len(steps), run.account()
    # What a stopped process had answered may not have left it: the rank then misses an earlier reply.
    assert (lines[0]["hook"] == one["hook"] or how == "stop") and lines[0]["reason"], lines[0]
    if one["hook"] not in ("__init__", "setup"):  # those die before they are ready for the first time
        assert len(run.events("ready", plugin=name, rank=rank)) == 1
    assert run.events("restart", plugin=name, rank=rank), run.account()


@pytest.mark.parametrize("group", GROUPS)
def test_weights_are_those_of_the_undisturbed_run(runs, group):
    ranks, faults = GROUPS[group]
    reference = runs.finish(config_of(group, times=0), ranks)
    run = runs.start(config_of(group, times=1), ranks)
    run.wait_for(lambda: len(run.workers()) == ranks, "all ranks were started")
    first_workers = run.workers()
    run.wait()
    assert_as_if_nothing_happened(run, reference)
    assert {rank["rank"]: rank["pid"] for rank in run.summary["ranks"]} == first_workers
    for number, one in enumerate(faults):
        assert_crash_is_told(run, f"saboteur{number}", one)
    everybody = {(f"saboteur{number}", one["rank"]) for number, one in enumerate(faults)}
    for entry in run.summary["plugins"]:
        if (entry["name"], entry["rank"]) not in everybody:
            assert entry["crashes"] == [] and entry["starts"] == 1, entry


def test_a_plugin_that_dies_again_while_its_state_is_restored(runs):
    gate = runs.gate(step=12)

    def config(times):
        given = {"hook": "load_state_dict", "step": -1, "times": times}
        return table(plugins=[
            plugin(PYTHON, "a", given={"how": "segv", **given}),
            plugin(NATIVE, "b", given={"how": "kill", **given}),
            gate.plugin,
        ])  # fmt: skip

    run = runs.start(config(times=1))
    gate.reached(run)
    for index in (0, 1):
        os.kill(run.hosts()[index, 0], signal.SIGKILL)
    gate.open()
    run.wait()
    reference = runs.finish(config(times=0))
    assert_as_if_nothing_happened(run, reference)
    for name in ("a", "b"):
        crashes = run.of_plugin(name)["crashes"]
        assert [crash.get("hook") for crash in crashes][1:] == ["load_state_dict"], crashes


def test_killed_from_outside_between_and_in_calls(runs):
    """A kill at any moment, as the kernel's OOM killer does it."""
    gate = runs.gate(step=11, rank=1)

    def config():
        return table(
            plugins=[plugin("wander:Wander", prefetch=3), plugin(NATIVE, "b", given={"times": 0}), gate.plugin]
        )

    run = runs.start(config(), 2)
    gate.reached(run)
    for pid in run.hosts().values():
        os.kill(pid, signal.SIGKILL)  # the gate too, in its call
    gate.open()
    run.wait()
    reference = runs.finish(config(), 2)
    assert_as_if_nothing_happened(run, reference)
    assert all(entry["starts"] == 2 for entry in run.summary["plugins"]), run.account()
