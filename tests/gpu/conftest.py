"""Real runs on a GPU; collected only in a build with CUDA."""

import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]

from runs import runs  # noqa: E402, F401  (found by the line above)


@pytest.fixture(autouse=True)
def gpu():
    try:
        found = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    except OSError:
        found = ""
    if "GPU 0" not in found:
        pytest.skip("needs a GPU")
