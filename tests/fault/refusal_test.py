"""Bad input: one sentence that a person can act on, exit status 2, no process left, nothing written but logs."""

import pathlib
import socket

import pytest

from runs import DATA, plugin, table

GOOD = """from bulkhead import Plugin

class Good(Plugin):
    def __init__(self, patience: int = 3):
        self.patience = patience

    def on_step_end(self, ctx):
        pass
"""


def refused(runs, config, words, **how):
    run = runs.finish(config, status=2, **how)
    told = run.errors.strip()
    assert told.count("\n") == 0 and told, f"one sentence, not:\n{told}"
    assert "Traceback" not in told
    for word in words:
        assert word in told, f"{word!r} is not in: {told}"
    written = (
        [path.relative_to(run.run_dir) for path in run.run_dir.rglob("*") if path.is_file()]
        if run.run_dir.exists()
        else []
    )
    beside = [str(path) for path in written if "logs" not in path.parts]
    assert beside == [], f"written: {beside}"
    return told


def by_line(changed):
    """A run file of which the line of a key is known: `changed` replaces whole lines by their key."""
    lines = {
        "data": f"data: {{type: csv, path: {DATA}/csv/digits.csv, target: digit, batch_size: 16}}",
        "model": "model: {type: mlp, width: 32}",
        "train": "train: {max_steps: 5}",
        **changed,
    }
    return "\n".join(lines.values()) + "\n"


RUN_FILES = {
    "an unknown key": ({"train": "train: {max_stepz: 5}"}, ["run.yaml:3", "max_stepz", "max_steps"]),
    "an unknown section": ({"modell": "modell: {type: mlp}"}, ["run.yaml:4", "modell", '"model"']),
    "a wrong type": ({"train": "train: {max_steps: many}"}, ["run.yaml:3", "train.max_steps", "many"]),
    "an unknown choice": ({"model": "model: {type: mpl}"}, ["run.yaml:2", "model.type", "mlp"]),
    "a negative batch": (
        {"data": f"data: {{type: csv, path: {DATA}/csv/digits.csv, target: digit, batch_size: -4}}"},
        ["run.yaml:1", "batch_size", "-4"],
    ),
    "a missing data file": (
        {"data": "data: {type: csv, path: nowhere.csv, target: digit}"}, ["run.yaml:1", "data.path", "nowhere.csv"],
    ),
    "a column that is not there": (
        {"data": f"data: {{type: csv, path: {DATA}/csv/digits.csv, target: digitt}}"},
        ["run.yaml:1", "digitt", "did you mean 'digit'"],
    ),
    "a model that does not fit the data": ({"model": "model: {type: gpt}"}, ["run.yaml:2", "model.type", "gpt", "csv"]),
    "more samples in a step than there are": (
        {"data": f"data: {{type: csv, path: {DATA}/csv/digits.csv, target: digit, batch_size: 4000}}"},
        ["run.yaml:1", "batch_size", "4000"],
    ),
    "not yaml": ({"train": "train: {max_steps: 5"}, ["run.yaml:"]),
    "nothing that ends it": ({"train": "train: {seed: 1}"}, ["max_steps", "max_epochs"]),
}  # fmt: skip


@pytest.mark.parametrize("case", RUN_FILES, ids=lambda case: case.replace(" ", "-"))
def test_a_run_file_with(runs, case):
    changed, words = RUN_FILES[case]
    refused(runs, by_line(changed), words)


def test_an_override_with_an_unknown_key(runs):
    refused(runs, table(), ["train.max_stepz", '"max_steps"'], overrides=["train.max_stepz=3"])


def test_no_ranks(runs):
    refused(runs, table(), ["--nproc-per-node", "0"], ranks=0)


def test_a_run_file_that_is_not_there(runs, tmp_path):
    refused(runs, table(), ["absent.yaml"], overrides=[str(tmp_path / "absent.yaml")])


def test_an_unknown_flag(runs):
    refused(runs, table(), ["--nproc-per-nodes"], flags=["--nproc-per-nodes", "2"])


def test_a_port_in_use(runs):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        refused(runs, table(), ["--master-port", port], ranks=2, flags=["--master-port", port])


def test_a_resume_from_nowhere(runs, tmp_path):
    refused(runs, table(), ["--resume", "nowhere"], flags=["--resume", str(tmp_path / "nowhere")])


def test_a_resume_with_another_number_of_ranks(runs):
    run = runs.finish(table(train={"max_steps": 10}))
    checkpoint = str(run.directory / "checkpoints" / "step-00000010")
    refused(runs, table(), ["1 rank", "2"], ranks=2, flags=["--resume", checkpoint])


# ----- Plugins -----

PLUGIN_FILES = {
    "a hook that does not exist": (
        GOOD.replace("on_step_end", "on_stepend"), "Good", {}, ["on_stepend", "on_step_end"],
    ),
    "an argument that does not exist": (GOOD, "Good", {"patients": 4}, ["with.patients", "patience"]),
    "a missing argument": (GOOD.replace("patience: int = 3", "patience: int"), "Good", {}, ["patience"]),
    "a class that does not exist": (GOOD, "Goood", {}, ["Goood", "Good"]),
    "a constructor that raises": (
        GOOD.replace("self.patience = patience", "raise ValueError('no patience left')"),
        "Good", {}, ["no patience left"],
    ),
    "a setup that raises": (
        GOOD.replace("on_step_end", "setup").replace("pass", "raise ValueError('not today')"),
        "Good", {}, ["setup", "ValueError", "not today"],
    ),
    "an import that fails": ("import absent_module\n" + GOOD, "Good", {}, ["absent_module"]),
    "a syntax error": (GOOD + "\nclass Worse(Plugin:\n", "Good", {}, ["plug.py"]),
}  # fmt: skip


@pytest.mark.parametrize("case", PLUGIN_FILES, ids=lambda case: case.replace(" ", "-"))
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_plugin_with(runs, tmp_path, case, ranks):
    text, name, given, words = PLUGIN_FILES[case]
    (tmp_path / "plug.py").write_text(text)
    config = by_line(
        {"plugins": "plugins:", "use": f"  - use: {tmp_path}/plug.py:{name}", "with": f"    with: {given}"}
    )
    refused(runs, config, ["run.yaml:", *words], ranks=ranks)


def test_a_plugin_file_that_is_not_there(runs):
    config = by_line({"plugins": "plugins:", "use": "  - use: absent.py:Good"})
    refused(runs, config, ["run.yaml:5", "absent.py"])


def test_a_shipped_plugin_that_does_not_exist(runs):
    refused(
        runs,
        by_line({"plugins": "plugins:", "use": "  - use: early_stopp"}),
        ["run.yaml:5", "early_stopp", '"early_stop"'],
    )


def test_two_plugins_of_one_name(runs):
    refused(runs, table(plugins=[plugin("saboteur"), plugin("saboteur")]), ["saboteur", "name"])


def test_a_native_plugin_with_a_wrong_argument(runs):
    refused(runs, table(plugins=[plugin("saboteur.so", given={"how": "explode"})]), ["how", "explode", "segv"])


def test_a_file_that_is_no_plugin(runs, tmp_path):
    path = tmp_path / "lib.so"
    path.write_bytes(pathlib.Path("/bin/true").read_bytes())
    refused(runs, table(plugins=[plugin(str(path))]), ["lib.so"])
