"""The conformance tests: the cases of five plugin systems on real runs, in both languages."""

import pathlib
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent / "support"), str(ROOT / "plugin-host" / "python")]

from runs import runs  # noqa: E402, F401  (found by the line above)


@pytest.fixture(params=["python", "native"])
def language(request):
    return request.param


@pytest.fixture(params=[1, 2, 3], ids="{}-ranks".format)
def ranks(request):
    return request.param


@pytest.fixture(params=[("python", 1), ("python", 2), ("native", 2), ("native", 3)], ids="{0[0]}-{0[1]}-ranks".format)
def place(request):
    """(language, ranks): both languages, one to three ranks, without each pair."""
    return request.param
