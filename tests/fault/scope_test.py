"""One process for several ranks (scope node and job): order, state, deaths (protocol/README.md, rule 14)."""

import json

import pytest

from runs import assert_as_if_nothing_happened, plugin, table


def lines(run, name):
    return [json.loads(line) for line in (run.directory / "shared" / f"{name}.jsonl").read_text().splitlines()]


def short(plugins, **changes):
    return table(plugins=plugins, train={"max_steps": 12, "validate_every": 6}, checkpoint={"every": 4}, **changes)


@pytest.mark.parametrize("ranks", [2, 3])
def test_a_node_plugin_hears_every_rank_in_step_and_rank_order(runs, ranks):
    run = runs.finish(short([plugin("shared:Ledger", scope="node")]), ranks)
    seen = lines(run, "Ledger")
    assert len({line["pid"] for line in seen}) == 1
    ends = [(line["step"], line["rank"]) for line in seen if line["hook"] == "on_step_end"]
    assert ends == [(step, rank) for step in range(12) for rank in range(ranks)]
    assert [line["count"] for line in seen] == list(range(1, len(seen) + 1))
    assert all(line["local_rank"] == line["rank"] and line["is_main"] == (line["rank"] == 0) for line in seen)
    losses = {line["loss"] for line in seen if (line["hook"], line["step"]) == ("on_step_end", 3)}
    assert len(losses) == ranks, "each rank's own loss"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_node_plugin_that_dies_comes_back_as_it_was(runs, rank):
    whole = runs.finish(short([plugin("shared:Ledger", scope="node")]), 2)
    entry = plugin("shared:Ledger", scope="node", given={"die_at": 7, "rank": rank}, restarts=3)
    run = runs.finish(short([entry]), 2)
    assert_as_if_nothing_happened(run, whole)
    last = {line["count"]: line for line in lines(run, "Ledger")}  # a call that was made again counts the same
    for line in lines(whole, "Ledger"):
        assert {**last[line["count"]], "pid": 0} == {**line, "pid": 0}
    assert len(run.events("crash")) == 1


@pytest.mark.parametrize("scope", ["node", "job"])
def test_a_shared_transform_does_what_one_for_each_rank_does(runs, scope):
    alone = runs.finish(short([plugin("shared:Tilt")]), 2)
    shared = runs.finish(short([plugin("shared:Tilt", scope=scope)]), 2)
    assert shared.weights == alone.weights
    transforms = [(line["step"], line["rank"]) for line in lines(shared, "Tilt") if "transform" in line["hook"]]
    assert transforms == [(step, rank) for step in range(12) for rank in range(2)]
    ends = [line["rank"] for line in lines(shared, "Tilt") if line["hook"] == "on_step_end"]
    assert ends == ([0, 1] * 12 if scope == "node" else [0] * 12)


def test_a_shared_transform_in_a_chain_with_others(runs):
    chain = [plugin("shared:Tilt", "first", prefetch=3), plugin("wander:Wander"), plugin("shared:Tilt", "last")]
    alone = runs.finish(short(chain), 2)
    mixed = [{**chain[0], "scope": "job"}, chain[1], {**chain[2], "scope": "node"}]
    assert runs.finish(short(mixed), 2).weights == alone.weights


def test_a_job_plugin_sees_metrics_of_all_ranks_and_is_called_once(runs):
    run = runs.finish(short([plugin("shared:Ledger", scope="job")]), 2)
    ends = [line for line in lines(run, "Ledger") if line["hook"] == "on_step_end"]
    assert [(line["step"], line["rank"]) for line in ends] == [(step, 0) for step in range(12)]
    assert [line["loss"] for line in ends] == [line["loss"] for line in run.metrics() if "loss" in line]


@pytest.mark.parametrize("scope", ["node", "job"])
def test_a_shared_transform_with_state_is_refused(runs, scope):
    run = runs.start(short([plugin("shared:Remembers", scope=scope)]), 2).wait(2)
    assert "stateless" in run.errors and scope in run.errors


def test_a_shared_plugin_that_is_given_up_is_given_up_by_all(runs):
    entry = plugin("shared:Ledger", scope="node", given={"die_at": 5}, restarts=0, then="disable")
    run = runs.finish(short([entry]), 2)
    assert run.summary["status"] == "completed"
    assert [entry["state"] for entry in run.summary["plugins"]] == ["disabled"]


def test_a_run_with_a_shared_plugin_goes_on_where_it_was(runs):
    gate = runs.gate(step=7)
    config = short([plugin("shared:Ledger", scope="node"), gate.plugin])
    run = runs.start(config, 2)
    gate.reached(run)
    run.process.terminate()
    run.wait_event("stop")
    gate.open()
    run.wait(130)
    resumed = runs.finish(config, 2, flags=["--resume", "auto"], run_dir=run.run_dir)
    counts = [line["count"] for line in lines(resumed, "Ledger")]
    assert counts == list(range(1, len(counts) + 1))
