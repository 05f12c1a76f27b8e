"""Data sets that plugins make of rows: the same whoever dies on the way, on however many ranks, and over a resume."""

import contextlib
import json
import os
import signal

import pytest
from safetensors.numpy import load_file

from runs import DATA, ROOT, assert_as_if_nothing_happened, native, plugin, starter, table



@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """2,100 rows: three chunks."""
    lines = (DATA / "gsm8k" / "train.jsonl").read_text().splitlines()
    path = tmp_path_factory.mktemp("rows") / "many.jsonl"
    path.write_text("\n".join(lines * 7) + "\n")
    return path


def config(path, plugins, batch_size=8, steps=6, **changes):
    return {
        "name": "run",
        "model": {"type": "gpt", "layers": 1, "heads": 2, "width": 16, "context": 64},
        "data": {"type": "rows", "path": str(path), "validation_fraction": 0.02, "batch_size": batch_size},
        "train": {"max_steps": steps, "log_every": 1, "validate_every": 4, "validate_batches": 2, "device": "cpu"},
        "checkpoint": {"every": 3},
        "plugins": plugins,
        **changes,
    }


def entries(hook="", chunk=0, times=1, restarts=5, **given):
    """All plugins of the stage, one of which dies."""
    of_class = {"preprocess": "Prepares", "keep": "Counts", "encode": "Encodes", "collate": "Collates"}
    victim = of_class.get(hook)
    return [
        plugin(
            f"rowwise:{name}", name,
            given={"hook": hook, "chunk": chunk, "times": times, **given} if name == victim else {},
            restarts=restarts,
        )
        for name in ("Prepares", "Counts", "Encodes", "Collates")
    ]  # fmt: skip


@pytest.fixture(scope="module")
def whole(many, tmp_path_factory):
    with starter(tmp_path_factory.mktemp("whole")) as runs:
        yield runs.finish(config(many, entries()))


def data_set(run):
    return (run.directory / "rows.safetensors").read_bytes()


def trained_on(run):
    """Of the data set, what training depends on."""
    tensors = load_file(run.directory / "rows.safetensors")
    return {name: tensors[name].tolist() for name in ("input_ids", "labels", "ends")}


@pytest.mark.parametrize(
    "hook, chunk", [("preprocess", 0), ("preprocess", 2), ("keep", 1), ("encode", 1), ("collate", 2)]
)
def test_a_plugin_that_dies_in_the_stage_changes_nothing(runs, many, whole, hook, chunk):
    run = runs.finish(config(many, entries(hook, chunk)))
    crash = run.events("crash")
    assert [line["hook"] for line in crash] == [hook]
    if hook != "collate":
        assert crash[0]["batch"] == f"chunk {chunk}"
    assert_as_if_nothing_happened(run, whole)
    assert trained_on(run) == trained_on(whole)


def test_the_data_set_is_the_same_on_two_ranks(runs, many, whole):
    two = runs.finish(config(many, entries(), batch_size=4), 2)
    assert data_set(two) == data_set(whole)
    assert two.summary["status"] == "completed" and two.summary["batches"]["trained"] == 12


def test_a_resumed_run_reads_the_data_set_and_goes_on(runs, many, whole):
    gate = runs.gate(step=4)
    run = runs.start(config(many, [*entries(), gate.plugin]), 2)
    gate.reached(run)
    run.process.terminate()
    run.wait_event("stop")
    gate.open()
    run.wait(130)
    assert len(run.events("rows")) == 1
    resumed = runs.finish(config(many, [*entries(), gate.plugin]), 2, flags=["--resume", "auto"], run_dir=run.run_dir)
    assert len(resumed.events("rows")) == 1, "the stage has not run again"
    undisturbed = runs.finish(config(many, [*entries(), runs.gate(step=1000).plugin]), 2)
    assert resumed.weights == undisturbed.weights


def test_a_checkpoint_has_the_data_set_and_another_run_can_begin_with_it(runs, many, whole):
    path = whole.directory / "checkpoints" / "step-00000003"
    assert (path / "rows.safetensors").samefile(whole.directory / "rows.safetensors")
    run = runs.finish(config(many, entries()), flags=["--resume", str(path)])
    assert run.summary["resumed_from"] == 3 and run.weights == whole.weights
    assert data_set(run) == data_set(whole)
    without = runs.finish(config(many, []), flags=["--resume", str(path)])
    assert trained_on(without) == trained_on(whole), "whatever the plugins are by now"
    other = config(many, entries(), model={"type": "gpt", "layers": 1, "heads": 2, "width": 16, "context": 32})
    refused = runs.finish(other, flags=["--resume", str(path)], status=2)
    assert "made with another data.tokenizer, other fractions or another model.context" in refused.errors


@pytest.mark.parametrize("every, step", [(0, 1), (2, 3)])
def test_ranks_that_begin_again_take_the_data_set_up(runs, many, every, step):
    gates = [runs.gate(step), runs.gate(step=1000)]
    configs = [config(many, [*entries(), gate.plugin], batch_size=4, checkpoint={"every": every}) for gate in gates]
    run = runs.start(configs[0], 2, flags=["--max-restarts", "1"])
    gates[0].reached(run)
    os.kill(run.workers()[0], signal.SIGKILL)
    gates[0].open()
    run.wait(0)
    assert len(run.events("rows")) == 1
    taken_up = "the data set is that of" in (run.directory / "logs" / "worker-0.log").read_text()
    assert taken_up == (every == 0), "else it comes from the checkpoint"
    undisturbed = runs.finish(configs[1], 2)
    assert run.weights == undisturbed.weights, "what the stage left in the plugins is there again"


def test_an_exception_in_the_stage_refuses_the_run(runs, many):
    run = runs.finish(config(many, entries("keep", 1, how="raise")), 2, status=2)
    expected = 'plugin "Counts": keep of chunk 1 (rows 1000 and up) failed: keep raised LookupError: as foreseen'
    assert expected in run.errors and "a data set cannot be half made" in run.errors
    assert list((run.directory / "dead_letters").glob("Counts-rank0-*.safetensors")) != []


def test_a_chunk_that_kills_twice_refuses_the_run(runs, many):
    run = runs.finish(config(many, entries("preprocess", 1, times=2)), status=2)
    expected = 'plugin "Prepares": preprocess of chunk 1 (rows 1000 and up) failed: preprocess killed Prepares 2 times'
    assert expected in run.errors
    lines = (run.directory / "logs" / "events.jsonl").read_text().splitlines()  # where a refused run leaves them
    events = [json.loads(line)["event"] for line in lines]
    assert events.count("crash") == 2 and events.count("poison") == 1


def test_a_plugin_given_up_in_the_stage_refuses_the_run_or_aborts_it(runs, many):
    refused = runs.finish(config(many, entries("encode", 0, restarts=0)), status=2)
    assert 'plugin "Encodes": encode of chunk 0' in refused.errors
    last = entries("encode", 0, restarts=0)
    last[2]["on_failure"]["then"] = "abort"
    assert runs.finish(config(many, last), status=3).summary["status"] == "aborted"


def test_an_interrupt_ends_the_stage(runs, many, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    waits = plugin("rowwise:Waits", given={"pipe": str(pipe)})
    run = runs.start(config(many, [*entries(), waits]), 2)
    writer = run.wait_for(lambda: _opened(pipe), "the stage has begun")
    run.process.terminate()
    run.wait_event("stop")
    os.write(writer, b"x")
    run.wait(130)
    assert run.summary["status"] == "interrupted" and run.events("rows") == []


def test_a_rank_that_dies_in_the_stage_begins_it_again(runs, many, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    waits = plugin("rowwise:Waits", given={"pipe": str(pipe)})

    def finish(run):
        run.wait_for(lambda: _fed(pipe) or run.events("rows"), "the data set is made")
        return run.wait(0)

    run = runs.start(config(many, [*entries(), waits]), 2, flags=["--max-restarts", "1"])
    writer = run.wait_for(lambda: _opened(pipe), "the stage has begun")
    os.kill(run.workers()[0], signal.SIGKILL)
    run.wait_event("restart", rank=0)
    os.close(writer)
    finish(run)
    assert len(run.events("rows")) == 1
    assert run.weights == finish(runs.start(config(many, [*entries(), waits]), 2)).weights


def _fed(pipe):
    """Gives whoever waits there a byte; says nothing, since that may have been one who has died."""
    with contextlib.suppress(OSError):
        writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        try:
            os.write(writer, b"x")
        finally:
            os.close(writer)


def _opened(pipe):
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None


def test_a_batch_that_no_model_can_take_is_skipped(runs, many):
    spoils = [entries()[0], plugin("rowwise:Spoils", given={"chunk": 2})]
    run = runs.finish(config(many, spoils))
    assert run.summary["batches"]["skipped"] == 1
    error = next(line for line in run.events("error") if line.get("step") == 2)
    assert error["hook"] == "collate"


def test_a_native_plugin_makes_the_data_set_in_any_scope(runs, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"Line {i} of some text"}) + "\n" for i in range(1200)))

    def entries(scope, times):
        given = {"how": "kill", "hook": "keep", "micro": 1, "times": times}
        return [plugin(native("rows"), "rows", scope=scope), plugin("saboteur.so", "saboteur", given=given, restarts=5)]

    alone = runs.finish(config(path, entries("rank", 0)))
    together = runs.finish(config(path, entries("job", 1), batch_size=4), 2)
    on_the_node = runs.finish(config(path, entries("node", 0), batch_size=4), 2)
    assert trained_on(alone) == trained_on(together) == trained_on(on_the_node)
    assert together.weights == on_the_node.weights
    assert [(line["plugin"], line["batch"]) for line in together.events("crash")] == [("saboteur", "chunk 1")]
    assert together.summary["batches"]["skipped"] == 0
    assert [entry["errors"] for entry in together.summary["plugins"]] == [0] * 3


def test_rows_without_plugins_are_read_by_every_rank(runs, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"line {i} of some text"}) + "\n" for i in range(100)))
    run = runs.finish(config(path, []), 2)
    assert not (run.directory / "rows.safetensors").exists()
    assert run.summary["status"] == "completed"


def test_long_answers_weigh_more_than_short_ones(runs, tmp_path):
    """One batch of two rows and two batches of one give the same loss: labels count, not batches."""
    path = tmp_path / "rows.jsonl"
    lines = [{"text": "ab"}, {"text": "abcdefgh" * 6}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    losses = []
    for batch_size, accumulate in ((2, 1), (1, 2)):
        train = {"max_steps": 3, "accumulate": accumulate, "log_every": 1}
        data = {"type": "rows", "path": str(path), "validation_fraction": 0, "batch_size": batch_size}
        run = runs.finish(config(path, [], train=train, data=data))
        losses.append([line["loss"] for line in run.metrics() if "loss" in line])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_hooks_of_rows_on_other_data_are_told_that_nobody_calls_them(runs):
    run = runs.finish(table(plugins=entries()[:1], train={"max_steps": 3}))
    log = (run.directory / "logs" / "worker-0.log").read_text()
    assert "Prepares has preprocess, which is never called: this data has no rows" in log
    assert not (run.directory / "rows.safetensors").exists()


def test_the_ready_run_file_of_gsm8k_learns(runs):
    text = (ROOT / "scripts" / "runs" / "gsm8k.yaml").read_text().replace("../../", f"{ROOT}/")
    small = ["train.max_epochs=0", "train.max_steps=12", "model.width=32", "model.context=384"]
    run = runs.finish(text, overrides=small)
    losses = [line["loss"] for line in run.metrics() if "loss" in line]
    assert losses[-1] < losses[0] - 0.3
    assert run.summary["status"] == "completed"
