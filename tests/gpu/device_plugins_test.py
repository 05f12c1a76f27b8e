"""Plugins with `device: cuda`: their batches lie on the rank's GPU, and what they do to the GPU is theirs alone."""

import os
import pathlib
import signal

import pytest

from runs import ROOT, assert_as_if_nothing_happened, native, plugin, table

PLUGINS = pathlib.Path(__file__).resolve().parent / "plugins" / "on_gpu.py"


def on_gpu(name, **keys):
    return plugin(f"{PLUGINS}:{name}", name, device="cuda", **keys)


def config(*plugins, **train):
    settings = {"device": "cuda", "deterministic": True, "precision": "fp32", **train}
    return table(train=settings, plugins=list(plugins))


def said(run):
    return "".join(path.read_text(encoding="utf-8") for path in (run.directory / "logs").glob("*.log"))


def logged(run):
    return "".join(path.read_text(encoding="utf-8") for path in run.directory.rglob("*.jsonl")) + said(run)


def test_a_batch_on_the_gpu_trains_as_the_same_batch_through_host_memory(runs):
    through_host = runs.finish(config(plugin(f"{PLUGINS}:Brighten", "Brighten")))
    through_device = runs.finish(config(on_gpu("Brighten")))
    assert "features on cuda:0 for cuda:0, labels on cuda:0" in logged(through_device)
    assert "through host memory" not in said(through_device)
    assert_as_if_nothing_happened(through_device, through_host)


def test_outputs_of_every_kind_arrive(runs):
    in_place = runs.finish(config(on_gpu("Brighten")))
    every_kind = runs.finish(config(on_gpu("Replace")))
    assert_as_if_nothing_happened(every_kind, in_place)


def test_a_chain_of_both_kinds_of_plugins_is_one_chain(runs):
    def chain(*devices):
        return [plugin(f"{PLUGINS}:Brighten", f"link{i}", device=device) for i, device in enumerate(devices)]

    on_host = runs.finish(config(*chain("cpu", "cpu", "cpu", "cpu")))
    mixed = runs.finish(config(*chain("cuda", "cuda", "cpu", "cuda")))
    assert_as_if_nothing_happened(mixed, on_host)


def test_recorded_steps_are_fed_from_the_gpu(runs):
    recorded = runs.finish(config(on_gpu("Brighten"), precision="bf16", max_steps=40))
    host = runs.finish(config(plugin(f"{PLUGINS}:Brighten", "Brighten"), precision="bf16", max_steps=40))
    assert_as_if_nothing_happened(recorded, host)


def test_a_view_that_a_plugin_keeps_stays_as_it_was(runs):
    kept = runs.finish(config(on_gpu("Keeper")))
    assert kept.of_plugin("Keeper")["errors"] == 0, kept.account()


def test_other_ways_to_the_host_give_the_same_bits(runs):
    shared = runs.finish(config(on_gpu("Brighten")))
    by_socket = runs.finish(config(on_gpu("Brighten", transport="socket")))
    assert "through host memory: it does not share this rank's GPU" in said(by_socket)
    assert_as_if_nothing_happened(by_socket, shared)


@pytest.mark.parametrize("how", ["illegal", "assertion", "memory", "kill", "segv", "scribble"])
def test_a_plugin_that_fails_on_the_gpu_dies_alone(runs, tmp_path, how):
    def fails(times):
        given = {"how": how, "marks": str(tmp_path), "steps": [6, 14], "times": times}
        return [on_gpu("Brighten"), on_gpu("Fails", given=given, restarts=6)]

    undisturbed = runs.finish(config(*fails(0)))
    disturbed = runs.finish(config(*fails(1)))
    assert len(disturbed.of_plugin("Fails")["crashes"]) == 2, disturbed.account()
    assert disturbed.of_plugin("Brighten")["crashes"] == []
    assert_as_if_nothing_happened(disturbed, undisturbed)


def test_an_input_that_kills_twice_is_poison_and_its_letter_holds_the_ranks_own(runs, tmp_path):
    given = {"how": "kill", "marks": str(tmp_path), "steps": [6], "times": 2}
    run = runs.finish(config(on_gpu("Brighten"), on_gpu("Fails", given=given, restarts=6)))
    letters = list((run.directory / "dead_letters").glob("*.safetensors"))
    assert len(letters) == 1 and run.summary["batches"]["dead_lettered"] == 1
    assert b"\x00\x00\xc0\x7f" * 8 not in letters[0].read_bytes()  # the NaN that it wrote


def test_an_exception_is_an_answer(runs):
    run = runs.finish(config(on_gpu("Raises")))
    assert (run.of_plugin("Raises")["errors"], run.of_plugin("Raises")["crashes"]) == (1, [])


@pytest.mark.parametrize("how", ["segv", "garbage", "exit3", "hang"])
def test_the_saboteurs_faults_with_a_batch_on_the_gpu(runs, how):
    def saboteur(times):
        given = {"how": how, "hook": "transform_train_batch", "step": [5, 17], "times": times}
        return plugin("saboteur", given=given, device="cuda", restarts=6, deadline="10s")

    undisturbed, disturbed = (runs.finish(config(on_gpu("Brighten"), saboteur(times))) for times in (0, 1))
    assert len(disturbed.of_plugin("saboteur")["crashes"]) == 2
    assert_as_if_nothing_happened(disturbed, undisturbed)


def test_a_run_killed_in_the_middle_goes_on_with_the_same_bits(runs):
    whole = runs.finish(config(on_gpu("Brighten"), max_steps=30))
    first = runs.finish(config(on_gpu("Brighten"), max_steps=30), overrides=["train.max_steps=20"])
    again = runs.finish(config(on_gpu("Brighten"), max_steps=30), run_dir=first.run_dir, flags=["--resume", "auto"])
    assert again.weights == whole.weights


def test_a_rank_that_dies_finds_its_hosts_again(runs):
    gate = runs.gate(step=17)
    settings = config(on_gpu("Brighten"), gate.plugin)
    run = runs.start(settings, flags=["--max-restarts", "1"])
    gate.reached(run)
    os.kill(run.workers()[0], signal.SIGKILL)
    run.wait_event("restart", rank=0)
    gate.open()
    run.wait()
    told = run.of_plugin("Brighten")
    assert (told["starts"], told["crashes"], run.summary["ranks"][0]["restarts"]) == (1, [], 1), run.account()
    assert run.weights == runs.finish(settings).weights


def test_a_native_plugin_changes_the_batch_with_a_kernel(runs):
    native_one = plugin(native("add_one_gpu"), device="cuda")
    python_one = plugin(f"{PLUGINS}:AddOne", "AddOne", device="cuda")
    assert_as_if_nothing_happened(runs.finish(config(native_one)), runs.finish(config(python_one)))


def test_a_native_plugin_whose_kernel_goes_astray_dies_alone(runs):
    """It does so each time: the second death is poison, and its batch is trained on unchanged."""
    run = runs.finish(config(plugin(native("add_one_gpu"), "Astray", device="cuda", given={"crash_at": 6})))
    assert {crash["step"] for crash in run.of_plugin("Astray")["crashes"]} == {6}
    assert (run.summary["batches"]["dead_lettered"], run.summary["ranks"][0]["restarts"]) == (1, 0)


def test_a_python_without_torch_is_refused(runs, tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('not in this environment')")
    python = tmp_path / "python"
    interpreter = os.environ.get("BULKHEAD_PYTHON", ROOT / ".deps" / "python" / "bin" / "python")
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path}:$PYTHONPATH exec {interpreter} "$@"\n')
    python.chmod(0o755)
    run = runs.finish(config(on_gpu("Brighten", python=str(python))), status=2)
    assert "Brighten has device: cuda, but the plugin's Python has no torch: not in this environment" in run.errors
