"""Runs with actors: tests/support/plugins/actor.py and actor.cpp, one script for both languages."""

import json

from runs import DATA, native, plugin, table

EPOCH = 5  # steps, however many ranks


def actor(language, name="actor", script=(), **keys):
    """An entry of `plugins`: a plugin that writes down every call and does what its script says."""
    use = native("actor") if language == "native" else "actor:Actor"
    return plugin(use, name, given={"script": list(script)}, **keys)


def digits(plugins, ranks=1, **changes):
    """A run file: two epochs of five steps on `ranks` ranks; after each a validation of two batches."""
    changes["data"] = {"batch_size": 1000 // EPOCH // ranks, "validation_fraction": 0.4, "test_fraction": 0.1,
                       **changes.get("data", {})}
    train = {"max_steps": 2 * EPOCH, "validate_every": EPOCH, "validate_batches": 2, **changes.get("train", {})}
    return table(**{"plugins": plugins, "checkpoint": {"every": 0}, **changes, "train": train})


def captions(plugins, **changes):
    """A run file: ten captioned pictures in five batches of two, all trained on."""
    config = {
        "name": "run",
        "data": {"type": "captions", "path": str(DATA / "captions"), "image_size": 16, "batch_size": 2,
                 "validation_fraction": 0},
        "model": {"type": "clip", "width": 16, "layers": 1, "heads": 2},
        "train": {"max_epochs": 1, "log_every": 1, "device": "cpu"},
        "plugins": plugins,
    }  # fmt: skip
    return {**config, **changes}


def calls(run, name="actor", rank=0, hook=None):
    """The calls that it wrote down, in order."""
    path = run.directory / "witness" / f"{name}-{rank}.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line for line in lines if hook in (None, line["hook"])]


def hooks(run, name="actor", rank=0):
    return [line["hook"] for line in calls(run, name, rank)]


def steps_of(run, hook, name="actor", rank=0):
    """ctx.global_step of each call of a hook."""
    return [line["global_step"] for line in calls(run, name, rank, hook)]
