"""Sample hooks in real runs on pictures with captions: the same for each sample whichever rank or incarnation handles it,
chained in list order, before the pictures are normalised and the captions tokenised."""

import json

import pytest

from runs import DATA, assert_as_if_nothing_happened, plugin


def config(plugins, batch_size, epochs=3, **changes):
    return {
        "name": "run",
        "model": {"type": "clip", "layers": 1, "heads": 2, "width": 16, "context": 64},
        "data": {
            "type": "captions",
            "path": str(DATA / "captions"),
            "image_size": 16,
            "validation_fraction": 0,
            "batch_size": batch_size,
        },
        "train": {"max_epochs": epochs, "log_every": 1, "device": "cpu"},
        "checkpoint": {"every": 2},
        "plugins": plugins,
        **changes,
    }


def seen(run, name, ranks=1):
    lines = []
    for rank in range(ranks):
        path = run.directory / "pictures" / f"{name}-{rank}.jsonl"
        lines += [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return lines


def by_sample(lines):
    """(hook, epoch, sample) → what was seen; the same each time."""
    found = {}
    for line in lines:
        key = (line["hook"], line["epoch"], line["sample"])
        assert found.setdefault(key, line) == line
    return found


def test_a_sample_gets_the_same_whichever_rank_handles_it(runs):
    one = by_sample(seen(runs.finish(config([plugin("pictures:Draws")], 10)), "Draws"))
    two = by_sample(seen(runs.finish(config([plugin("pictures:Draws")], 5), 2), "Draws", 2))
    assert one == two
    assert len(one) == 2 * 3 * 10
    first = one["image", 0, 0]
    assert first["form"] == ["uint8", 16, 16, 3] and first["path"].endswith(".jpg")
    assert len({one["image", epoch, 0]["sha"] for epoch in range(3)}) == 3, "each epoch draws anew"


def test_a_host_that_dies_in_a_sample_hook_changes_nothing(runs):
    def entries(times):
        given = {"how": "kill", "times": times}
        return [
            plugin("pictures:Draws", restarts=9),
            plugin("saboteur", "image", given={**given, "hook": "transform_image", "step": [1, 4]}, restarts=9),
            plugin("saboteur.so", "caption", given={**given, "hook": "transform_caption", "step": [0, 3]}, restarts=9),
        ]

    whole = runs.finish(config(entries(0), 5, epochs=3), 1)
    run = runs.finish(config(entries(1), 5, epochs=3), 1)
    assert_as_if_nothing_happened(run, whole)
    assert len(run.events("crash")) == 4


@pytest.mark.parametrize("letters", ["ab", "ba"])
def test_captions_are_chained_in_list_order(runs, letters):
    marks = [plugin("pictures:Marks", letter, given={"letter": letter}, prefetch=2 + i) for i, letter in enumerate(letters)]
    run = runs.finish(config([plugin("pictures:Reads"), *marks], 5, epochs=1), 2)
    captions = {line["sample"]: line["caption"] for line in seen(run, "read", 2)}
    files = sorted((DATA / "captions").glob("*.txt"))
    assert captions == {i: file.read_text().splitlines()[0].strip() + letters for i, file in enumerate(files)}


def test_the_shipped_caption_and_image_plugins_work_together(runs):
    shipped = [plugin("image_flip"), plugin("image_jitter"), plugin("caption_shuffle"), plugin("caption_dropout", given={"probability": 0.5})]
    run = runs.finish(config([*shipped, plugin("pictures:Reads")], 5, epochs=2), 2)
    assert run.summary["status"] == "completed"
    assert all(entry["errors"] == 0 for entry in run.summary["plugins"])
    captions = [line["caption"] for line in seen(run, "read", 2)]
    assert 0 < sum(caption == "" for caption in captions) < len(captions)
    assert run.weights == runs.finish(config([*shipped, plugin("pictures:Reads")], 5, epochs=2), 2).weights


def test_a_picture_of_another_size_is_an_error_and_trained_on_as_it_was(runs):
    run = runs.finish(config([plugin("pictures:Spoils")], 5, epochs=1))
    assert run.of_plugin("Spoils")["errors"] == 1
    assert run.summary["batches"]["dead_lettered"] == 1


def test_a_caption_plugin_on_data_without_captions_is_told_so(runs):
    from runs import table

    run = runs.finish(table(plugins=[plugin("pictures:Marks", given={"letter": "x"})], train={"max_steps": 3}))
    assert "never called" in (run.directory / "logs" / "worker-0.log").read_text()


def test_a_resumed_run_goes_on_with_the_samples_that_were_on_their_way(runs):
    gate = runs.gate(step=3)
    entries = [plugin("pictures:Draws", prefetch=2), gate.plugin]
    run = runs.start(config(entries, 5, epochs=4), 1)
    gate.reached(run)
    run.process.terminate()
    run.wait_event("stop")
    gate.open()
    run.wait(130)
    resumed = runs.finish(config(entries, 5, epochs=4), 1, flags=["--resume", "auto"], run_dir=run.run_dir)
    whole = runs.finish(config([plugin("pictures:Draws", prefetch=2), runs.gate(step=1000).plugin], 5, epochs=4), 1)
    assert resumed.weights == whole.weights
