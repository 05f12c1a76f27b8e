"""What scripts/setup and scripts/bulkhead-run say when they cannot go on.  Each runs in a tree of its own."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"


@pytest.fixture
def tree(tmp_path):
    """A clone that was never built, with programs in front of the machine's."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "bin").mkdir()
    for name in ("setup", "python-requirements.txt", "bulkhead-run"):
        shutil.copy(SCRIPTS / name, tmp_path / "scripts" / name)
    return tmp_path


def program(tree, name, text):
    path = tree / "bin" / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def run(tree, script, *arguments, **variables):
    environment = {**os.environ, "PATH": f"{tree / 'bin'}:{os.environ['PATH']}", "XDG_CACHE_HOME": str(tree / "cache"),
                   **variables}
    return subprocess.run([tree / "scripts" / script, *arguments], env=environment, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=60, check=False)


def test_setup_refuses_an_unknown_option(tree):
    done = run(tree, "setup", "--biuld")
    assert done.returncode == 2
    assert "setup: --biuld is not an option" in done.stderr
    assert "usage: scripts/setup" in done.stderr


def test_setup_without_root_says_the_exact_command(tree):
    program(tree, "dpkg-query", "exit 1")
    program(tree, "apt-get", "echo called >>$0.log; exit 1")
    program(tree, "id", "echo 1000")
    done = run(tree, "setup")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "run: sudo apt-get update && sudo apt-get install -y " in done.stderr
    assert " libzmq3-dev " in done.stderr
    assert not (tree / "bin" / "apt-get.log").exists()


def test_setup_fetches_package_lists_only_when_the_install_needs_them(tree):
    program(tree, "dpkg-query", "exit 1")
    program(tree, "apt-get", "echo $1 >>$0.log; echo 'E: Unable to locate package libzmq3-dev'; exit 100")
    program(tree, "id", "echo 0")
    done = run(tree, "setup")
    assert done.returncode == 1
    assert (tree / "bin" / "apt-get.log").read_text().split() == ["install", "update"]
    assert done.stderr.strip().endswith("failed: E: Unable to locate package libzmq3-dev")


def test_setup_refuses_a_cmake_that_is_too_old(tree):
    program(tree, "dpkg-query", "for p in $*; do echo \"$p=installed \"; done | tr -d '\\n'")
    program(tree, "cmake", "echo cmake version 3.22.1")
    done = run(tree, "setup")
    assert done.returncode == 2
    assert done.stderr.strip() == "setup: cmake 3.22.1 on PATH is too old: 3.25 is needed"


def test_setup_refuses_a_torch_directory_that_holds_none(tree):
    program(tree, "dpkg-query", "for p in $*; do echo \"$p=installed \"; done | tr -d '\\n'")
    done = run(tree, "setup", BULKHEAD_TORCH_DIR=str(tree))
    assert done.returncode == 2
    assert done.stderr.strip() == f"setup: BULKHEAD_TORCH_DIR={tree} has no include/torch and lib/libtorch_cpu.so"


def test_bulkhead_run_on_an_unbuilt_tree_names_what_builds_it(tree):
    done = run(tree, "bulkhead-run", "run.yaml")
    assert done.returncode == 2
    assert done.stderr == "bulkhead-run: bulkhead is not built yet; run scripts/setup --build\n"


def test_bulkhead_run_hands_its_arguments_over_also_through_a_link(tree):
    binary = tree / "build/release/coordinator/bulkhead"
    binary.parent.mkdir(parents=True)
    binary.write_text('#!/bin/sh\nprintf "%s|" "$@"\nexit 3\n')
    binary.chmod(0o755)
    (tree / "bin" / "train").symlink_to(tree / "scripts" / "bulkhead-run")
    done = subprocess.run([tree / "bin" / "train", "a b.yaml", "train.max_steps=5"], capture_output=True, text=True,
                          cwd="/", stdin=subprocess.DEVNULL, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (3, "run|a b.yaml|train.max_steps=5|")
