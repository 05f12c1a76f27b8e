"""The process that forks hosts: what it imports before, what its children are, and when it forks none."""

import contextlib
import ctypes
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import textwrap

import pytest

from bulkhead import zygote

PACKAGE = pathlib.Path(zygote.__file__).resolve().parents[1]
_PR_SET_CHILD_SUBREAPER = 36


def test_it_looks_for_imports_where_a_host_would_run_them():
    source = """
        import os, json.decoder as d
        from collections import abc
        from . import beside
        from bulkhead import Plugin
        try:
            import yaml
        except ImportError:
            yaml = None

        class P(Plugin):
            import enum
            def __init__(self):
                import torch
            def setup(self, ctx):
                from numpy import linalg
            def on_step_end(self, ctx):
                import seldom

        def helper():
            import never
    """
    found = ["os", "json.decoder", "collections", "yaml", "enum", "torch", "numpy"]
    assert zygote.imports_of(textwrap.dedent(source)) == found


def test_it_imports_libraries_and_nothing_of_the_plugin(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("raise SystemExit('it was imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert [zygote.is_library(name) for name in ("json", "sys", "numpy", "mine", "nowhere")] == [True] * 3 + [False] * 2


@contextlib.contextmanager
def started(tmp_path, source=""):
    """A zygote of this process, which is its children's reaper; the socket to it."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    plugin = tmp_path / "plugin.py"
    plugin.write_text(textwrap.dedent(source))
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {
        **os.environ, "PYTHONPATH": str(PACKAGE), "BULKHEAD_ZYGOTE_FILE": str(plugin), "BULKHEAD_ROOM": "." * 256,
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    process = subprocess.Popen([sys.executable, "-m", "bulkhead.zygote"], stdin=its, env=environment)
    its.close()
    ours.settimeout(60)
    try:
        yield ours
    finally:
        ours.close()
        assert process.wait(30) == 0
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def ask(connection, tmp_path, **changes):
    request = {"env": [f"PYTHONPATH={PACKAGE}", "PATH=/bin"], "log": str(tmp_path / "log"), "parent": os.getpid(),
               "oom": 0, "memory": 0, "files": 0, "cpu": 0}  # fmt: skip
    request.update(changes)
    connection.send(json.dumps(request).encode())
    return json.loads(connection.recv(4096))


HOST = ["BULKHEAD_PLUGIN=4", "BULKHEAD_RANK=1", "BULKHEAD_GENERATION=7", "BULKHEAD_SECRET=s"]


def lasting(tmp_path):
    """The environment of a host that waits for a coordinator that never answers."""
    return [f"PYTHONPATH={PACKAGE}", *HOST, f"BULKHEAD_ENDPOINT=ipc://{tmp_path}/nobody"]


def test_a_child_is_a_host_of_its_own(tmp_path):
    with started(tmp_path) as connection:
        pid = ask(connection, tmp_path, env=lasting(tmp_path), files=100)["pid"]
        proc = pathlib.Path(f"/proc/{pid}")
        while b"bulkhead.host" not in (proc / "cmdline").read_bytes():
            os.sched_yield()
        try:
            assert set(HOST) <= set((proc / "environ").read_text().split("\0"))
            assert b"bulkhead.host" in (proc / "cmdline").read_bytes()
            status = dict(line.split(":\t", 1) for line in (proc / "status").read_text().splitlines() if ":\t" in line)
            assert int(status["PPid"]) == os.getpid()
            assert os.getpgid(pid) == pid
            while "100" not in (proc / "limits").read_text().split("Max open files")[1].splitlines()[0]:
                os.sched_yield()
        finally:
            os.kill(pid, signal.SIGKILL)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_many_children_die_as_any_program_does(tmp_path):
    with started(tmp_path) as connection:
        for _ in range(20):
            pid = ask(connection, tmp_path)["pid"]  # without the environment of a host
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 20 and all("is started by the coordinator" in line for line in lines)


def test_children_outlive_it(tmp_path):
    with started(tmp_path) as connection:
        pid = ask(connection, tmp_path, env=lasting(tmp_path))["pid"]
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@pytest.mark.parametrize(
    "source, said",
    [("import a_library_with_a_thread", "threads run since"), ("def broken(:", ""), ("import nowhere_at_all", "")],
)
def test_it_forks_only_where_that_is_safe(tmp_path, monkeypatch, source, said):
    library = tmp_path / "lib"
    library.mkdir()
    (library / "sitecustomize.py").write_text(
        "import sysconfig\n_old = sysconfig.get_path\n"
        f"sysconfig.get_path = lambda kind, *rest: {str(library)!r} if kind == 'platlib' else _old(kind, *rest)\n"
    )
    (library / "a_library_with_a_thread.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(3600,), daemon=True).start()\n"
    )
    monkeypatch.setenv("BULKHEAD_TEST_LIBRARY", str(library))
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", f"{PACKAGE}:{library}")
    with started(tmp_path, source) as connection:
        answer = ask(connection, tmp_path)
        if said:
            assert said in answer["error"]
        else:
            os.waitpid(answer["pid"], 0)
