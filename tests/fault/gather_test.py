"""ctx.all_gather: every rank's value on every rank, whoever dies, is retried, is given up or does not ask."""

import json

import pytest

from runs import assert_as_if_nothing_happened, plugin, table


def lines(run, rank=None):
    path = run.directory / "shared" / "Gathers.jsonl"
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in found if rank in (None, line["rank"])]


def config(how="", restarts=3, **changes):
    entry = plugin("shared:Gathers", given={"how": how}, restarts=restarts)
    return table(plugins=[entry], train={"max_steps": 10, "validate_every": 0}, checkpoint={"every": 4}, **changes)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_everybody_gets_what_everybody_said_in_rank_order(runs, ranks):
    run = runs.finish(config(), ranks)
    for rank in range(ranks):
        said = [line["said"] for line in lines(run, rank)]
        assert said == [[[other, step] for other in range(ranks)] for step in range(10)]
        assert all(line["again"] == [line["total"] - ranks * line["step"]] * ranks for line in lines(run, rank))


@pytest.mark.parametrize("how", ["die", "die_after"])
def test_a_peer_that_dies_says_it_again(runs, how):
    whole = runs.finish(config(), 2)
    run = runs.finish(config(how), 2)
    assert_as_if_nothing_happened(run, whole)
    for rank in range(2):
        totals = {line["step"]: line["total"] for line in lines(run, rank)}
        assert totals == {line["step"]: line["total"] for line in lines(whole, rank)}
    assert len(run.events("crash")) == 1


def test_nobody_waits_for_a_peer_that_was_given_up(runs):
    run = runs.finish(config("always", restarts=1), 2)
    assert run.summary["status"] == "completed"
    assert run.of_plugin("Gathers", 1)["state"] == "disabled"
    own = lines(run, 0)
    assert [line["said"] for line in own if line["step"] < 5] == [[[0, step], [1, step]] for step in range(5)]
    assert all(line["said"] == [[0, line["step"]], None] for line in own if line["step"] >= 5)


def test_a_peer_that_does_not_ask_makes_it_an_error_for_the_others(runs):
    run = runs.finish(config("silent"), 2)
    errors = run.events("error")
    assert [(event["rank"], event["step"]) for event in errors] == [(0, 5)]
    assert "rank 1" in errors[0]["reason"] and "all_gather" in errors[0]["reason"]
    assert [line["step"] for line in lines(run, 0)] == [0, 1, 2, 3, 4, 6, 7, 8, 9]


def test_in_job_scope_the_list_has_one_entry(runs):
    entry = plugin("shared:Gathers", scope="job", given={"how": ""})
    run = runs.finish(table(plugins=[entry], train={"max_steps": 5}), 2)
    assert [line["said"] for line in lines(run)] == [[[0, step]] for step in range(5)]
