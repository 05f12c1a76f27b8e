"""The fault tests: real processes, real signals."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from runs import WORKER, Runs  # noqa: E402  (found by the line above)


@pytest.fixture
def runs(tmp_path):
    """Starts runs, and ends whatever is left of them."""
    if not WORKER.exists():
        pytest.skip("this build has no worker")
    started = Runs(tmp_path)
    yield started
    started.end()
