"""What changes how a step is computed, in whole runs: precisions, models from elsewhere, and what saves memory."""

import json
import shutil
import signal

import pytest
from safetensors import safe_open

from resumption import assert_same_end, config_of, stop
from runs import DATA, plugin, table

MODELS = DATA / "hugging_face"
TEXT = {"type": "text", "path": str(DATA / "shakespeare" / "input.txt"), "batch_size": 4}


def text_run(model, **changes):
    config = table(**changes)
    config["train"] = {**config["train"], "max_steps": 8, "validate_every": 8}
    config["model"] = {"context": 24, **model}
    config["data"] = TEXT
    return config


def names_of(path):
    with safe_open(path, "np") as file:
        return set(file.keys())


# ----- Models in Hugging Face's format -----


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2"])
def test_training_starts_from_a_folder(runs, name):
    kind = "gpt" if name == "gpt2" else "llama"
    run = runs.finish(text_run({"type": kind, "from": str(MODELS / name)}), 2)
    other = runs.finish(text_run({"type": kind, "from": str(MODELS / name)}, train={"seed": 2}), 2)
    first, last = ([line["loss"] for line in run.metrics() if "loss" in line][index] for index in (0, -1))
    assert last < first
    assert run.weights != other.weights  # of other batches; no number is drawn
    if kind == "llama":
        in_files = set().union(*(names_of(path) for path in (MODELS / name).glob("model*.safetensors")))
        assert names_of(run.directory / "checkpoints" / "step-00000008" / "model.safetensors") == in_files


def test_a_checkpoint_is_a_folder_to_start_from(runs, tmp_path):
    config = text_run({"type": "llama", "from": str(MODELS / "llama")})
    first = runs.finish(config)
    shutil.copy(MODELS / "llama" / "config.json", tmp_path)
    shutil.copy(first.directory / "checkpoints" / "step-00000008" / "model.safetensors", tmp_path)
    config["model"]["from"] = str(tmp_path)
    config["optimizer"] = {"lr": 1.0e-12, "weight_decay": 0}
    still = runs.finish(config)  # and stays where it was
    assert still.summary["validation"]["loss"] == pytest.approx(first.summary["validation"]["loss"], rel=1e-4)


def test_a_folder_that_does_not_fit_is_refused(runs):
    run = runs.start(text_run({"type": "gpt", "from": str(MODELS / "llama")})).wait(2)
    assert 'config.json: model_type is "llama", which model.type llama reads, not gpt' in run.errors


# ----- fp16 -----


def fp16_run(gate):
    overflow = plugin("overflow:Overflow", given={"steps": [5, 19]})
    return table(plugins=[gate.plugin, overflow], train={"precision": "fp16"})


def test_fp16_leaves_out_a_step_that_overflows_and_resumes(runs):
    gate = runs.gate(step=19)  # the checkpoint remembers numbers that are not finite
    reference = runs.finish(fp16_run(runs.gate(step=1000)), 2)
    lines = [line for line in reference.metrics() if "loss_scale" in line]
    assert [line["step"] for line in lines] == list(range(1, 31))
    assert [line["loss_scale"] for line in lines] == [65536] * 5 + [32768] * 14 + [16384] * 11
    assert lines[-1]["skipped_steps"] == reference.summary["skipped_steps"] == 2
    assert lines[-1]["loss"] < lines[0]["loss"]
    stopped = stop(runs.start(fp16_run(gate), 2), gate, signal.SIGINT)
    resumed = runs.finish(fp16_run(gate), 2, flags=["--resume", "auto"], run_dir=stopped.run_dir)
    assert_same_end(resumed, reference)
    assert resumed.summary["skipped_steps"] == 2


def test_fp16_gives_up_where_nothing_is_ever_finite(runs):
    config = table(plugins=[plugin("overflow:Overflow", given={"steps": list(range(40))})],
                   train={"precision": "fp16", "max_steps": 40})  # fmt: skip
    run = runs.start(config).wait(1)
    assert "train.precision: fp16: the gradients are not finite" in run.summary["reason"]


# ----- Memory -----


@pytest.mark.parametrize("kind", ["gpt", "llama"])
def test_activation_checkpointing_changes_no_bit(runs, kind):
    model = {"type": kind, "layers": 2, "heads": 2, "width": 32}
    plain, saving = (
        runs.finish(text_run({**model, "activation_checkpointing": on}, train={"precision": "bf16"}), 2)
        for on in (False, True)
    )
    assert saving.weights == plain.weights
    assert saving.summary["validation"] == plain.summary["validation"]


def test_a_sharded_optimizer_changes_no_bit(runs):
    gate = runs.gate(step=13)
    configs = [config_of([runs.gate(step=1000)]), config_of([gate], optimizer={"sharded": True})]
    reference = runs.finish(configs[0], 2)
    stopped = stop(runs.start(configs[1], 2), gate, signal.SIGINT)
    resumed = runs.finish(configs[1], 2, flags=["--resume", "auto"], run_dir=stopped.run_dir)
    assert_same_end(resumed, reference)
    states = [run.directory / "checkpoints" / "step-00000030" / "optimizer.safetensors" for run in (reference, resumed)]
    assert states[0].read_bytes() == states[1].read_bytes()


def test_the_summary_says_how_much_memory_each_rank_had(runs):
    run = runs.finish(table(), 2)
    peaks = [rank["peak_memory_bytes"] for rank in run.summary["ranks"]]
    assert len(peaks) == 2 and all(20e6 < peak < 20e9 for peak in peaks), json.dumps(run.summary["ranks"])
