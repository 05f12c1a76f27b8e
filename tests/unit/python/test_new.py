"""``python -m bulkhead.new``: what it writes works as it is, and nothing is written over."""

import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

from bulkhead import new

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "plugin-host" / "python")}
SECONDS = 120


def run(*command, **more):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=SECONDS,
                          env={**ENVIRONMENT, **more})  # fmt: skip


def make(folder, name, language="py"):
    return run(sys.executable, "-m", "bulkhead.new", name, "--lang", language, "--dir", folder)


def native_host():
    """The newest that was built here, or None."""
    built = sorted(ROOT.glob("build/*/plugin-host/bulkhead-plugin-host"), key=os.path.getmtime)
    return built[-1] if built else None


def test_a_python_plugin_is_written_with_a_test_that_passes_and_checks_clean(tmp_path):
    made = make(tmp_path, "loss_guard")
    assert made.returncode == 0
    assert made.stdout.startswith(f"wrote {tmp_path}/loss_guard.py and its test {tmp_path}/test_loss_guard.py\n")
    told = next(line for line in made.stdout.splitlines() if line.startswith("test it:"))[len("test it:") :]
    assert run("sh", "-c", f"{told} -q -p no:cacheprovider", PYTHONPATH="").stdout.startswith("....")
    given = '{"limit": 1, "patience": 2}'
    checked = run(sys.executable, "-m", "bulkhead.check", tmp_path / "loss_guard.py", "--with", given)
    assert checked.returncode == 0 and "LossGuard" in checked.stdout and "stop" in checked.stdout


def test_its_test_can_fail(tmp_path):
    make(tmp_path, "loss_guard")
    file = tmp_path / "loss_guard.py"
    file.write_text(file.read_text().replace("self.high + 1", "1"))
    tested = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path / "test_loss_guard.py")
    assert tested.returncode == 1 and "2 failed" in tested.stdout


@pytest.mark.skipif(not shutil.which("c++"), reason="no C++ compiler")
def test_a_native_plugin_builds_without_a_warning(tmp_path):
    assert make(tmp_path, "loss_guard", "cpp").returncode == 0
    built = run("c++", "-std=c++20", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I",
                ROOT / "plugin-host/sdk/include", tmp_path / "loss_guard.cpp")  # fmt: skip
    assert (built.returncode, built.stderr) == (0, "")


@pytest.mark.skipif(not shutil.which("c++") or native_host() is None, reason="the native host was not built")
def test_a_native_plugin_is_written_with_a_test_that_passes(tmp_path):
    make(tmp_path, "loss_guard", "cpp")
    program = tmp_path / "bulkhead"  # as the command: plugin check …
    check = f'"{sys.executable}" -m bulkhead.check --native-host "{native_host()}"'
    program.write_text(f'#!/bin/sh\nshift 2\nexec {check} "$@"\n')
    program.chmod(0o755)
    tested = run(tmp_path / "test_loss_guard.sh", BULKHEAD=program)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "LossGuard, c++" in tested.stdout and tested.stdout.endswith("\nclean\n")
    source = tmp_path / "loss_guard.cpp"
    source.write_text(source.read_text().replace("loss->second <= limit_", "true"))
    assert run(tmp_path / "test_loss_guard.sh", BULKHEAD=program).stderr == "test_loss_guard: it never stopped\n"


def test_a_native_test_without_the_program_says_so(tmp_path):
    make(tmp_path, "loss_guard", "cpp")
    tested = run(tmp_path / "test_loss_guard.sh", BULKHEAD="/no/such/program")
    assert tested.returncode == 2 and tested.stderr == "test_loss_guard: no program /no/such/program; set BULKHEAD\n"


@pytest.mark.parametrize("language", ["py", "cpp"])
def test_nothing_is_written_over(tmp_path, language):
    test = tmp_path / ("test_a_b.py" if language == "py" else "test_a_b.sh")
    test.write_text("mine")
    made = make(tmp_path, "a_b", language)
    assert made.returncode == 2
    assert made.stderr == f"bulkhead plugin new: {test} exists already; choose another name or --dir\n"
    assert test.read_text() == "mine" and list(tmp_path.iterdir()) == [test]


@pytest.mark.parametrize(
    "name, language, words",
    [
        ("my-plugin", "py", 'it must be letters, digits and _, no digit first; "my_plugin" would do'),
        ("../x", "py", '"x" would do'),
        ("9lives", "cpp", "no digit first"),
        ("é", "py", "it must be letters, digits and _"),
        ("class", "py", 'it is a word of the language; "my_class" would do'),
        ("virtual", "cpp", 'it is a word of the language; "my_virtual" would do'),
        ("json", "py", 'it is a module of Python\'s own; "my_json" would do'),
        ("bulkhead", "py", "it is bulkhead's own"),
        ("Plugin", "cpp", "it is bulkhead's own"),
        ("__", "py", "it is no name"),
    ],
)
def test_what_is_no_name_is_refused_with_a_sentence(tmp_path, capsys, name, language, words):
    assert new.main([name, "--lang", language, "--dir", str(tmp_path)]) == 2
    assert words in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_a_folder_that_is_none_is_refused(tmp_path, capsys):
    assert new.main(["a", "--dir", str(tmp_path / "no")]) == 2
    assert capsys.readouterr().err == f"bulkhead plugin new: --dir: {tmp_path}/no is not a folder\n"


def test_classes_are_named_after_their_file():
    names = {"loss_guard": "LossGuard", "ema2": "Ema2", "MyThing": "MyThing", "_x": "X"}
    assert {name: new.class_name(name) for name in names} == names
