"""Steps that are recorded and replayed, one ahead of the host, train as those that are queued kernel by kernel."""

import collections
import pathlib

import pytest

from runs import BUILD, DATA, plugin, table

PLUGINS = pathlib.Path(__file__).resolve().parent / "plugins" / "steps.py"
NOISE = plugin("token_noise", given={"probability": 0.02})
LISTEN = plugin(f"{PLUGINS}:Listen")


def config_of(*plugins, **train):
    config = table(train={"max_steps": 60, "validate_every": 25, "device": "cuda", "precision": "bf16",
                          "deterministic": True, **train}, checkpoint={"every": 20}, plugins=list(plugins))  # fmt: skip
    config["model"] = {"type": "gpt", "layers": 2, "heads": 2, "width": 64, "context": 32}
    config["data"] = {"type": "text", "path": str(DATA / "shakespeare" / "input.txt"), "batch_size": 8}
    config["schedule"] = {"type": "cosine", "warmup_steps": 5}
    return config


def watch(path):
    return plugin(f"{PLUGINS}:Weights", given={"path": str(path)})


def said(run):
    return "".join(path.read_text(encoding="utf-8") for path in (run.directory / "logs").glob("*.log"))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_replayed_steps_are_those_queued_one_by_one(runs, tmp_path, accumulate):
    files = [tmp_path / "replayed", tmp_path / "queued"]
    replayed = runs.finish(config_of(watch(files[0]), NOISE, accumulate=accumulate))
    queued = runs.finish(config_of(watch(files[1]), NOISE, LISTEN, accumulate=accumulate))
    assert "steps are recorded and replayed" in said(replayed)
    assert "queued kernel by kernel" not in said(replayed), said(replayed)
    assert "steps are queued kernel by kernel: a plugin listens to on_backward_end" in said(queued)
    assert replayed.weights == queued.weights
    assert replayed.summary["validation"] == queued.summary["validation"]
    assert files[0].read_text() == files[1].read_text()
    assert len(files[0].read_text().splitlines()) == 9


@pytest.mark.parametrize("recompute", [False, True])
def test_llama_is_recorded_and_may_compute_its_blocks_again(runs, recompute):
    configs = [config_of(), config_of(LISTEN)]
    for config in configs:
        config["model"] = {"type": "llama", "layers": 2, "heads": 4, "kv_heads": 2, "width": 64, "context": 32,
                           "activation_checkpointing": recompute}  # fmt: skip
    replayed, queued = (runs.finish(config) for config in configs)
    assert "steps are recorded and replayed" in said(replayed)
    assert replayed.weights == queued.weights
    assert replayed.summary["validation"] == queued.summary["validation"]


def test_losses_and_norms_are_those_of_their_step(runs):
    columns = ("step", "loss", "grad_norm", "lr", "accuracy")
    replayed, queued = (runs.finish(config_of(*plugins)).metrics() for plugins in ([], [LISTEN]))
    assert [[line.get(name) for name in columns] for line in replayed] == [
        [line.get(name) for name in columns] for line in queued
    ]


def test_a_host_that_is_killed_changes_nothing(runs):
    def sabotage(times):
        given = {"how": "segv", "hook": "transform_train_batch", "step": [10, 31], "times": times}
        return plugin("saboteur", given=given, restarts=10)

    killed, undisturbed = (runs.finish(config_of(NOISE, sabotage(times))) for times in (1, 0))
    assert killed.weights == undisturbed.weights
    assert sum(len(entry["crashes"]) for entry in killed.summary["plugins"]) == 2


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_rank_that_meets_itself_over_nccl_trains_as_one_alone(runs, monkeypatch, accumulate):
    alone = runs.finish(config_of(NOISE, accumulate=accumulate))
    monkeypatch.setenv("BULKHEAD_NCCL_ALONE", "1")
    met = runs.finish(config_of(NOISE, accumulate=accumulate))
    assert "steps are recorded and replayed" in said(met)
    assert "queued kernel by kernel" not in said(met), said(met)
    assert met.weights == alone.weights


def test_a_rank_over_nccl_ends_where_one_alone_does(runs, monkeypatch):
    stop = plugin(f"{PLUGINS}:Stop", given={"step": 23})
    alone = runs.finish(config_of(stop))
    monkeypatch.setenv("BULKHEAD_NCCL_ALONE", "1")
    met = runs.finish(config_of(stop))
    assert met.weights == alone.weights
    assert met.summary["steps"] == alone.summary["steps"] < 30


NOTIFY = plugin(f"{PLUGINS}:Notify")
CSV = plugin("csv_log", scope="job")


@pytest.mark.parametrize("plugins", [[], [NOTIFY, NOISE, CSV]], ids=["no plugins", "plugins"])
@pytest.mark.parametrize("ranks", ["alone", "over NCCL"])
def test_the_host_waits_for_the_device_once_a_step(runs, monkeypatch, tmp_path, plugins, ranks):
    monkeypatch.setenv("LD_PRELOAD", str(BUILD / "tests" / "gpu" / "count_waits.so"))
    monkeypatch.setenv("BULKHEAD_WAITS_LOG", str(tmp_path / "waits"))
    if ranks == "over NCCL":
        monkeypatch.setenv("BULKHEAD_NCCL_ALONE", "1")
    config = config_of(*plugins, validate_every=1000)
    config["checkpoint"] = {"every": 0}
    run = runs.finish(config)
    assert "queued kernel by kernel" not in said(run), said(run)
    logs = [path.read_text(encoding="utf-8").splitlines() for path in tmp_path.glob("waits.*")]
    asked = next(log for log in logs if "cudaGraphLaunch" in log)
    launches = [at for at, name in enumerate(asked) if name == "cudaGraphLaunch"]
    assert len(launches) == 2 * 57, "passes and update of each step after the first three"
    steady = collections.Counter(asked[launches[20] : launches[100]])
    assert steady == {"cudaGraphLaunch": 80, "cudaEventSynchronize": 40}
