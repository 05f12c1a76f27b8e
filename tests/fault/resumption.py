"""What the tests of restarts and resumes share: a run whose plugins show whatever is not put back exactly."""

import os

from runs import plugin, table


def config_of(gates, **changes):
    plugins = [
        plugin("wander:Wander", prefetch=3),
        plugin("saboteur.so", "native", given={"times": 0}),
        plugin("saboteur", "python", given={"times": 0}),
        plugin("csv_log", "log", scope="job"),
        *(gate.plugin for gate in gates),
    ]
    return table(plugins=plugins, **changes)


def stop(run, gate, number):
    """The run, told to stop at the gate by that signal and ended in order."""
    gate.reached(run)
    before = len(run.events("stop"))
    os.kill(run.process.pid, number)
    run.wait_for(lambda: len(run.events("stop")) > before, "the event stop")
    gate.open()
    return run.wait(130)


def assert_same_end(run, reference):
    summary, expected = run.summary, reference.summary
    assert run.weights == reference.weights, run.account()
    assert (summary["status"], summary["steps"]) == ("completed", expected["steps"])
    assert summary["samples"] == expected["samples"] and summary["batches"] == expected["batches"]
    assert summary["final_loss"] == expected["final_loss"] and summary["validation"] == expected["validation"]
    assert run.steps() == list(range(1, expected["steps"] + 1)), run.steps()
    assert [line["loss"] for line in run.metrics() if "loss" in line] == [
        line["loss"] for line in reference.metrics() if "loss" in line
    ]
    logged = [(path.directory / "metrics.csv") for path in (run, reference)]
    if logged[1].exists():
        assert logged[0].read_text() == logged[1].read_text()
