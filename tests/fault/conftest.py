"""The fault tests: real processes, real signals."""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]

from runs import runs  # noqa: E402, F401  (found by the line above)
