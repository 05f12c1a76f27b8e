"""Real runs of the real programs: start one, wait for what it does, read what it leaves, see who is still alive.

Every process of a run inherits a marker in its environment, by which it is found whatever its parent, group or
session.  Nothing here sleeps for a guessed time: `wait_for` looks again and again until a deadline, and wakes at
once when the run ends.

With BULKHEAD_TEST_TRANSPORT=socket every plugin that does not say otherwise is called through a socket.
"""

import contextlib
import json
import os
import pathlib
import select
import shlex
import signal
import shutil
import subprocess
import tempfile
import time
import uuid

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("BULKHEAD_BUILD_DIR", ROOT / "build" / "release"))
BULKHEAD = BUILD / "coordinator" / "bulkhead"
WORKER = BUILD / "worker" / "bulkhead-worker"
DATA = ROOT / "tests" / "data"
PLUGIN_FOLDERS = [ROOT / "tests" / place / "plugins" for place in ("fault", "conformance", "support")]
TRANSPORT = os.environ.get("BULKHEAD_TEST_TRANSPORT")
PATIENCE = 90.0  # seconds; a run takes two or three where nobody else computes
_LOOK = 0.01  # seconds between two looks at a condition
_MARKER = "BULKHEAD_TEST_RUN"


def table(**changes):
    """A run file: the digits, 1,000 samples an epoch, a small network.  Mappings are merged, other keys replaced.
    On the CPU also where there is a GPU, since most such machines have fewer than a test has ranks."""
    config = {
        "name": "run",
        "data": {
            "type": "csv",
            "path": str(DATA / "csv" / "digits.csv"),
            "target": "digit",
            "batch_size": 20,
            "validation_fraction": 0.5,
        },
        "model": {"type": "mlp", "width": 32},
        "train": {"max_steps": 30, "log_every": 1, "validate_every": 10, "validate_batches": 4, "device": "cpu"},
        "checkpoint": {"every": 10},
    }
    for key, value in changes.items():
        config[key] = {**config.get(key, {}), **value} if isinstance(value, dict) else value
    return config


def native(name):
    """The file of a native plugin of tests/support/plugins."""
    return str(BUILD / "tests" / "plugins" / f"{name}.so")


def plugin(use, name=None, *, restarts=None, then=None, given=None, **keys):
    """One entry of `plugins`; a file of PLUGIN_FOLDERS may be named by its stem and class: "gate:Gate"."""
    stem, _, class_name = use.partition(":")
    path = next((folder / f"{stem}.py" for folder in PLUGIN_FOLDERS if (folder / f"{stem}.py").exists()), None)
    entry = {"use": f"{path}:{class_name}" if class_name and path else use, **keys}
    if TRANSPORT is not None:
        entry.setdefault("transport", TRANSPORT)
    if name is not None:
        entry["name"] = name
    if given is not None:
        entry["with"] = given
    on_failure = {key: value for key, value in (("restarts", restarts), ("then", then)) if value is not None}
    return {**entry, "on_failure": on_failure} if on_failure else entry


class Run:
    """One call of `bulkhead run`.  Use `Runs.start`, which ends it at teardown."""

    def __init__(self, folder, config, ranks=1, flags=(), overrides=(), run_dir=None):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.marker = uuid.uuid4().hex
        self.run_dir = run_dir or folder / "runs"
        file = folder / "run.yaml"
        file.write_text(config if isinstance(config, str) else json.dumps(config, indent=1))
        self.command = [str(BULKHEAD), "run", "--nproc-per-node", str(ranks), "--run-dir", str(self.run_dir), *flags,
                        str(file), *overrides]  # fmt: skip
        self._before, self._directory = set(self._directories()), None
        self.sockets = pathlib.Path(tempfile.mkdtemp(prefix="bh-"))  # short: a socket's path is
        self._output, self._errors = folder / "stdout", folder / "stderr"
        with self._output.open("w") as output, self._errors.open("w") as errors:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors,
                                            env=self._environment(), start_new_session=True)  # fmt: skip
        self._pidfd = os.pidfd_open(self.process.pid)

    def _environment(self):
        return {**os.environ, "OMP_NUM_THREADS": "1", "XDG_RUNTIME_DIR": str(self.sockets), _MARKER: self.marker}

    # ----- Waiting -----

    def wait_for(self, condition, what, patience=PATIENCE):
        """The first true value of `condition()`; fails when there is none in time or the run has ended without."""
        deadline = time.monotonic() + patience
        while True:
            ended = bool(select.select([self._pidfd], [], [], _LOOK)[0])
            if value := condition():
                return value
            assert not ended, f"the run ended before {what}\n{self.account()}"
            assert time.monotonic() < deadline, f"waited {patience} s for {what}\n{self.account()}"

    def wait(self, status=0, patience=PATIENCE):
        """Waits for the end with this exit status; then no process and no socket may be left.  Returns the run."""
        try:
            code = self.process.wait(patience)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the run did not end within {patience} s\n{self.account()}") from None
        assert code == status, f"exit status {code}, not {status}\n{self.account()}"
        assert self.alive() == [], f"processes are left: {self.alive()}\n{self.account()}"
        assert list(self.sockets.iterdir()) == [], self.account()
        if self._directories():
            _ = self.directory  # while there is no later one beside it
        return self

    def wait_event(self, name, **fields):
        """The first line of events.jsonl with this event and these fields."""
        return self.wait_for(lambda: next(iter(self.events(name, **fields)), None), f"the event {name} {fields}")

    def wait_nobody(self, patience=5.0):
        """Waits until no process of the run is alive, however its coordinator ended."""
        deadline = time.monotonic() + patience
        while left := self.alive():
            assert time.monotonic() < deadline, f"still alive after {patience} s: {left}\n{self.account()}"
            select.select([], [], [], _LOOK)

    # ----- What it leaves -----

    @property
    def directory(self):
        """The run's directory: the new one, or the only one where it was resumed."""
        if self._directory is None:
            new = [path for path in self._directories() if path not in self._before] or self._directories()
            assert len(new) == 1, f"run directories: {new}\n{self.account()}"
            self._directory = new[0]
        return self._directory

    def _directories(self):
        return sorted(path for path in self.run_dir.glob("*") if path.is_dir()) if self.run_dir.exists() else []

    @property
    def summary(self):
        return json.loads((self.directory / "summary.json").read_text())

    @property
    def weights(self):
        sha = self.summary["params_sha256"]
        assert len(sha) == 64, self.account()
        return sha

    def events(self, name=None, **fields):
        lines = _json_lines(self.directory / "events.jsonl") if self._directories() else []
        wanted = {**({"event": name} if name else {}), **fields}
        return [line for line in lines if all(line.get(key) == value for key, value in wanted.items())]

    def metrics(self):
        return _json_lines(self.directory / "metrics.jsonl") if self._directories() else []

    def steps(self):
        """Of metrics.jsonl's training lines, in order."""
        return [line["step"] for line in self.metrics() if "loss" in line]

    def checkpoints(self):
        return sorted(path.name for path in (self.directory / "checkpoints").glob("step-*"))

    def of_plugin(self, name, rank=0):
        """Its part of summary.json."""
        return next(entry for entry in self.summary["plugins"] if (entry["name"], entry.get("rank", 0)) == (name, rank))

    @property
    def errors(self):
        return self._errors.read_text()

    def account(self):
        """The command and the ends of what was written, for a failed assertion."""
        parts = [shlex.join(self.command)]
        logs = sorted(self.run_dir.glob("*/logs/*.log")) + sorted(self.run_dir.glob("*/events.jsonl"))
        for path in [self._output, self._errors, *logs]:
            text = path.read_text(errors="replace")[-1500:].strip()
            if text:
                parts.append(f"--- {path.name}\n{text}")
        return "\n".join(parts)

    # ----- Its processes -----

    def alive(self):
        """Processes of the run, without the ones that have ended and wait to be reaped: (pid, program)."""
        return [(pid, name) for pid, name, _ in self._processes()]

    def workers(self):
        """rank → pid"""
        found = self._processes()
        return {int(env["BULKHEAD_RANK"]): pid for pid, name, env in found if name == "bulkhead-worker"}

    def hosts(self):
        """(index of the plugin, rank) → pid of the one that serves"""
        return {key: min(found)[1] for key, found in self._incarnations().items()}

    def standbys(self):
        """(index of the plugin, rank) → pid of the one that stands by for it"""
        return {key: max(found)[1] for key, found in self._incarnations().items() if len(found) > 1}

    def zygotes(self):
        """name of the plugin's file → pid of the process that its hosts are forked by"""
        found = (entry for entry in self._processes() if "BULKHEAD_ZYGOTE_FILE" in entry[2])
        return {pathlib.Path(env["BULKHEAD_ZYGOTE_FILE"]).name: pid for pid, _, env in found}

    def _incarnations(self):
        """(index of the plugin, rank) → [(generation, pid)]"""
        found = {}
        for pid, _, env in self._processes():
            if "BULKHEAD_PLUGIN" in env:
                key = int(env["BULKHEAD_PLUGIN"]), int(env["BULKHEAD_RANK"])
                found.setdefault(key, []).append((int(env["BULKHEAD_GENERATION"]), pid))
        return found

    def _processes(self):
        return _marked(f"{_MARKER}={self.marker}")

    def kill(self):
        """SIGKILL to all that is left, until nothing is."""
        for _ in range(100):
            left = self._processes()
            if not left:
                break
            for pid, _, _ in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.poll()
        self.process.wait(10)
        os.close(self._pidfd)
        shutil.rmtree(self.sockets, ignore_errors=True)


class Gate:
    """Holds a run at the end of a step (plugins/gate.py), from `reached` until `open`."""

    def __init__(self, folder, step, rank=0):
        self._pipe = folder / f"gate-{uuid.uuid4().hex[:8]}"
        os.mkfifo(self._pipe)
        self._writer = None
        given = {"pipe": str(self._pipe), "step": step, "rank": rank}
        self.plugin = plugin("gate:Gate", f"gate-{rank}-{step}", given=given)

    def reached(self, run):
        """Waits until the run stands there."""
        run.wait_for(self._come, f"{self.plugin['name']} was reached")

    def _come(self):
        try:
            self._writer = os.open(self._pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads yet
            return False
        os.open(self._pipe, os.O_RDONLY | os.O_NONBLOCK)  # the pipe outlives the plugin's process
        return True

    def open(self):
        """Now, and for whoever comes there later: after a death, or in another run."""
        os.write(self._writer, bytes(64))


class Runs:
    """The runs of one test: each has its own folder below the test's, and all are ended at its end."""

    def __init__(self, folder):
        self.folder = folder
        self._started = []

    def gate(self, step, rank=0):
        return Gate(self.folder, step, rank)

    def start(self, config, ranks=1, flags=(), overrides=(), run_dir=None):
        """`run_dir`: that of an earlier run, to resume it; its own where not given."""
        run = Run(self.folder / f"run{len(self._started)}", config, ranks, flags, overrides, run_dir)
        self._started.append(run)
        return run

    def finish(self, config, ranks=1, status=0, **how):
        """Start and wait."""
        return self.start(config, ranks, **how).wait(status)

    def end(self):
        for run in self._started:
            run.kill()


@pytest.fixture
def runs(tmp_path):
    """Starts runs, and ends whatever is left of them."""
    with starter(tmp_path) as started:
        yield started


@contextlib.contextmanager
def starter(folder):
    """The same for a fixture of another scope."""
    if not WORKER.exists():
        pytest.skip("this build has no worker")
    started = Runs(folder)
    try:
        yield started
    finally:
        started.end()


def _marked(marker):
    """(pid, program, environment) of every process with this entry in its environment; zombies have none."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            environment = (path / "environ").read_bytes().decode(errors="replace").split("\0")
            if marker in environment:
                name = pathlib.Path(os.readlink(path / "exe")).name
                pairs = (entry.partition("=") for entry in environment)
                found.append((int(path.name), name, {key: value for key, _, value in pairs}))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # ended in between, or not ours
    return found


def _json_lines(path):
    """The whole lines of a file that may still be written to."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def assert_as_if_nothing_happened(run, reference):
    """The run trained what the undisturbed one did, with the same ranks to its end."""
    summary = run.summary
    assert run.weights == reference.weights, run.account()
    assert summary["status"] == "completed" and summary["steps"] == reference.summary["steps"]
    assert summary["batches"] == reference.summary["batches"], run.account()
    assert [summary["batches"][key] for key in ("lost", "duplicated", "skipped", "dead_lettered")] == [0, 0, 0, 0]
    assert [rank["restarts"] for rank in summary["ranks"]] == [0] * len(summary["ranks"])
    assert [rank["exit"] for rank in summary["ranks"]] == [0] * len(summary["ranks"])
    assert run.steps() == reference.steps()
    assert [line["loss"] for line in run.metrics() if "loss" in line] == [
        line["loss"] for line in reference.metrics() if "loss" in line
    ]
