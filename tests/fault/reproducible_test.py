"""Equal runs give equal bits: every model and kind of data, on one rank and on two."""

import pytest

from runs import DATA, plugin, table

MODELS = {
    "gpt": {
        "model": {"type": "gpt", "layers": 2, "heads": 2, "width": 32, "context": 32},
        "data": {"type": "text", "path": str(DATA / "shakespeare" / "input.txt"), "batch_size": 4},
        "schedule": {"type": "cosine", "warmup_steps": 2},
    },
    "cnn": {
        "model": {"type": "cnn", "width": 8},
        "data": {"type": "mnist", "path": str(DATA / "mnist"), "batch_size": 16},
    },
    "mlp": {},
}


def config_of(model, **train):
    keys = {key: dict(value) for key, value in MODELS[model].items()}
    config = table(train={"max_steps": 8, "validate_every": 8, **train})
    config.update(keys)
    config["plugins"] = [plugin("saboteur", given={"times": 0}), plugin("saboteur.so", "native", given={"times": 0})]
    if model == "gpt":
        config["plugins"].append(plugin("token_noise"))
    return config


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("model", MODELS)
def test_two_equal_runs(runs, model, ranks):
    first, second = (runs.finish(config_of(model), ranks) for _ in range(2))
    assert first.weights == second.weights
    assert first.summary["validation"] == second.summary["validation"]
    losses = [line["loss"] for line in first.metrics() if "loss" in line]
    assert losses == [line["loss"] for line in second.metrics() if "loss" in line] and len(losses) == 8


@pytest.mark.parametrize("ranks", [1, 2])
def test_with_micro_batches(runs, ranks):
    first, second = (runs.finish(config_of("mlp", accumulate=2), ranks) for _ in range(2))
    assert first.weights == second.weights
    assert first.weights != runs.finish(config_of("mlp"), ranks).weights
    assert first.summary["batches"]["trained"] == 16 * ranks


def test_the_seed_counts(runs):
    assert runs.finish(config_of("mlp", seed=1)).weights != runs.finish(config_of("mlp", seed=2)).weights


def test_a_plugin_that_does_nothing_changes_nothing(runs):
    config = config_of("mlp")
    config["plugins"] = []
    bare = runs.finish(config, 2)
    config["plugins"] = [plugin("witness:Witness", prefetch=3), plugin("csv_log", scope="job")]
    assert runs.finish(config, 2).weights == bare.weights
