"""What hooks are told, in which order, and what follows from what they ask for (DESIGN §6.3, protocol/README.md)."""

import json

import pytest

from runs import BUILD, plugin, table

EPOCH = 5  # steps: 1,000 samples in batches of 100 on 2 ranks, or of 200 on 1


def short(ranks=1, **changes):
    changes["data"] = {"batch_size": 200 // ranks, **changes.get("data", {})}
    changes["train"] = {"max_steps": 2 * EPOCH, "validate_every": 0, **changes.get("train", {})}
    changes.setdefault("checkpoint", {"every": 4})
    return table(**changes)


def seen(run, name, rank=0):
    return [json.loads(line) for line in (run.directory / "witness" / f"{name}-{rank}.jsonl").read_text().splitlines()]


# ----- Order -----


def expected_order(steps, epoch, ahead, micro_batches, validations, save_every):
    """protocol/README.md, "The stream of a plugin process", rules 1 and 8: (hook, global_step) of each call."""
    order = [("setup", 0), ("state_dict", 0), ("on_train_start", 0)]

    def transforms(first, last, end):
        for step in range(first, min(last, end)):
            order.extend([("transform_train_batch", step)] * micro_batches)

    def save(done):
        order.extend([("on_save_start", done), ("state_dict", done), ("on_save_end", done)])

    for first in range(0, steps, epoch):
        end = min(first + epoch, steps)
        order.append(("on_epoch_start", first))
        transforms(first, first + ahead, end)
        for step in range(first, end):
            order.append(("on_step_start", step))
            transforms(step + ahead, step + ahead + 1, end)
            for micro in range(micro_batches):
                order.append(("on_backward_end", step))
                if micro + 1 < micro_batches:
                    order.append(("on_substep_end", step))
            order.extend([("on_optimizer_step_start", step), ("on_optimizer_step_end", step)])
            order.extend([("on_step_end", step), ("should_stop", step), ("on_log", step)])
            done = step + 1
            if done == end:
                order.append(("on_validate_start", done))
                order.extend([("transform_validate_batch", done)] * min(ahead, validations))
                for batch in range(validations):
                    if batch + ahead < validations:
                        order.append(("transform_validate_batch", done))
                    order.append(("on_validate_step_end", done))
                order.append(("on_validate_end", done))
            if done % save_every == 0:
                save(done)
        order.append(("on_epoch_end", end))
    order.append(("on_train_end", steps))
    save(steps)
    return order


@pytest.mark.parametrize("ahead", [0, 2, 7])
def test_the_order_of_the_calls_is_the_protocols(runs, ahead):
    config = short(
        train={"accumulate": 2}, plugins=[plugin("witness:Witness", prefetch=ahead)], data={"batch_size": 100}
    )
    run = runs.finish(config)
    calls = [(line["hook"], line["global_step"]) for line in seen(run, "Witness")]
    assert calls == expected_order(2 * EPOCH, EPOCH, ahead, micro_batches=2, validations=4, save_every=4)
    micro = [line["micro_batch"] for line in seen(run, "Witness") if line["hook"] == "transform_train_batch"]
    assert micro == [0, 1] * 2 * EPOCH


def test_a_chain_looks_no_further_ahead_than_its_beginning(runs):
    first, second = plugin("witness:Witness", "first", prefetch=1), plugin("witness:Witness", "second", prefetch=3)
    run = runs.finish(short(plugins=[first, second]))
    for name in ("first", "second"):
        calls = [(line["hook"], line["global_step"]) for line in seen(run, name)]
        assert calls == expected_order(2 * EPOCH, EPOCH, 1, micro_batches=1, validations=4, save_every=4)


def test_a_resumed_run_goes_on_in_the_order(runs):
    run = runs.finish(short(plugins=[plugin("witness:Witness", prefetch=2)]))
    whole = [(line["hook"], line["global_step"]) for line in seen(run, "Witness")]
    checkpoint = str(run.directory / "checkpoints" / "step-00000008")
    again = runs.finish(short(plugins=[plugin("witness:Witness", prefetch=2)]), flags=["--resume", checkpoint])
    calls = [(line["hook"], line["global_step"]) for line in seen(again, "Witness")]
    # What comes after the state in the stream; on_save_end of the checkpoint itself is not called again.
    rest = whole[whole.index(("on_save_end", 8)) + 1 :]
    assert calls[:3] == [("setup", 0), ("load_state_dict", 0), ("on_load", 8)] and calls[3:] == rest
    assert again.weights == run.weights


# ----- Facts -----


def test_facts_on_two_ranks(runs):
    config = short(2, plugins=[plugin("witness:Witness")])
    run = runs.finish(config, 2)
    for rank in (0, 1):
        for line in seen(run, "Witness", rank):
            assert (line["rank"], line["local_rank"], line["node_rank"]) == (rank, rank, 0)
            assert (line["world_size"], line["local_world_size"], line["is_distributed"]) == (2, 2, True)
            assert line["is_main"] == (rank == 0) and line["device"] == "cpu" and line["map_loc"] == {"cuda:0": "cpu"}
            assert (line["generation"], line["scope"], line["replaying"]) == (1, "rank", False)
            assert line["project"] == "run" and line["run_dir"] == str(run.directory)
            if line["hook"] in ("setup", "state_dict") and line["global_step"] == 0:
                continue
            assert (line["epoch_length"], line["max_steps"], line["max_epochs"]) == (EPOCH, 2 * EPOCH, 0)
        assert_places(seen(run, "Witness", rank))
        ids = [line["call_id"] for line in seen(run, "Witness", rank) if line["hook"] not in ("setup",)]
        assert len(set(ids[1:])) == len(ids[1:])
    draws = [
        [line["draw"] for line in seen(run, "Witness", rank) if line["hook"] == "on_step_start"] for rank in (0, 1)
    ]
    assert len(set(draws[0] + draws[1])) == 4 * EPOCH, "each call has its own seed"


def assert_places(lines):
    losses = {}
    for line in lines:
        step, epoch = line["global_step"], line["epoch"]
        if line["hook"] in ("on_step_start", "transform_train_batch", "on_step_end"):
            assert (epoch, line["step_in_epoch"]) == (step // EPOCH, step % EPOCH), line
        if line["hook"] == "on_step_end":
            losses[step] = line["metrics"]["loss"]
            assert line["lr"] == 0.001 and line["grad_norm"] > 0
        if line["hook"] == "on_step_start":
            assert line["metrics"].get("loss") == losses.get(step - 1), line
        if line["hook"] == "on_validate_end":
            assert line["best_metric"] == min(line["metrics"]["loss"], line["best_metric"])
    assert sorted(losses) == list(range(2 * EPOCH))


def test_a_prefetched_transform_sees_the_step_that_its_place_fixes(runs):
    run = runs.finish(short(plugins=[plugin("witness:Witness", prefetch=2)]))
    losses = {
        line["global_step"]: line["metrics"]["loss"] for line in seen(run, "Witness") if line["hook"] == "on_step_end"
    }
    for line in seen(run, "Witness"):
        if line["hook"] == "transform_train_batch":
            assert line["metrics"].get("loss") == losses.get(line["global_step"] - 3), line


def test_python_and_native_plugins_are_told_the_same(runs):
    probe = str(BUILD / "tests" / "plugins" / "context_probe.so")
    config = short(2, plugins=[plugin("witness:Witness", "python"), plugin(probe, "native")])
    run = runs.finish(config, 2)
    for rank in (0, 1):
        native = seen(run, "native", rank)
        hooks = {line["hook"] for line in native}
        python = [line for line in seen(run, "python", rank) if line["hook"] in hooks]
        own = ("call_id", "draw")
        assert native == [{key: value for key, value in line.items() if key not in own} for line in python]


def test_a_job_plugin_sees_metrics_of_all_ranks_once(runs):
    (runs.folder / "job.py").write_text(
        "from bulkhead import Plugin\n"
        "class Job(Plugin):\n"
        "    def on_step_end(self, ctx):\n"
        "        ctx.log_metrics({'job_loss': ctx.metrics['loss'], 'job_rank': ctx.rank, 'job_size': ctx.world_size})\n"
    )
    run = runs.finish(short(2, plugins=[plugin(f"{runs.folder}/job.py:Job", scope="job")]), 2)
    assert [entry["name"] for entry in run.summary["plugins"]] == ["Job"]
    losses = {line["step"]: line["loss"] for line in run.metrics() if "loss" in line}
    told = [line for line in run.metrics() if "job_loss" in line]
    assert len(told) >= EPOCH and all((line["job_rank"], line["job_size"]) == (0, 2) for line in told)
    assert {line["job_loss"] for line in told} <= set(losses.values())


# ----- Control -----


def asking(ask, hook, step, rank=0, ranks=2, **changes):
    given = {"ask": ask, "hook": hook, "step": step, "rank": rank}
    changes["checkpoint"] = {"every": 7, "keep": 0}
    changes["train"] = {"max_steps": 20, "validate_every": 7, **changes.get("train", {})}
    return short(ranks, plugins=[plugin("conductor:Conductor", given=given)], **changes)


@pytest.mark.parametrize(
    "hook, step, steps",
    [
        ("on_step_start", 5, 6),
        ("transform_train_batch", 5, 6),
        ("on_step_end", 5, 7),
        ("should_stop", 5, 7),
        ("on_validate_end", 7, 7),
        ("on_epoch_start", 5, 5),
        ("on_epoch_end", 10, 10),
    ],
)
@pytest.mark.parametrize("rank", [0, 1])
def test_a_stop_takes_effect_on_all_ranks_at_its_step(runs, hook, step, steps, rank):
    run = runs.finish(asking("stop", hook, step, rank), 2)
    summary = run.summary
    assert (summary["status"], summary["exit_code"], summary["steps"]) == ("stopped", 0, steps), run.account()
    assert summary["reason"] == ("Conductor said should_stop" if hook == "should_stop" else "the conductor says so")
    assert run.checkpoints()[-1] == f"step-{steps:08}"


def test_a_stop_comes_before_the_validation_and_the_save_of_its_boundary(runs):
    run = runs.finish(asking("stop", "on_step_end", 5), 2)
    assert run.summary["steps"] == 7
    assert [line for line in run.metrics() if "validation" in line] == []
    assert [line["step"] for line in run.events("save")] == [7], "only the one at the end"


def test_a_save_on_request(runs):
    run = runs.finish(asking("save", "on_step_end", 3, rank=1), 2)
    assert run.checkpoints() == [f"step-{step:08}" for step in (5, 7, 14, 20)]
    again = runs.finish(
        asking("save", "on_step_end", 3, rank=1),
        2,
        flags=["--resume", str(run.directory / "checkpoints" / "step-00000005")],
    )
    assert again.weights == run.weights


def test_a_validation_and_a_log_line_on_request(runs):
    run = runs.finish(asking("validate", "on_step_end", 3), 2)
    assert [line["step"] for line in run.metrics() if "validation" in line] == [5, 7, 14, 20]
    run = runs.finish(asking("log", "on_step_end", 3, train={"log_every": 100}), 2)
    assert run.steps() == [1, 5, 20]


def test_an_epoch_ended_on_request(runs):
    run = runs.finish(asking("stop_epoch", "on_step_start", 6, rank=1), 2)
    epochs = {line["step"]: line["epoch"] for line in run.metrics() if "loss" in line}
    assert run.summary["status"] == "completed" and run.summary["steps"] == 20
    assert [epochs[step] for step in (5, 6, 7, 8, 12, 13)] == [0, 1, 1, 2, 2, 3], epochs
