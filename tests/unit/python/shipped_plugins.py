"""The shipped plugins for tests: loaded as a host loads them, and their modules for the pure functions."""

import pathlib
import sys

import pytest

from bulkhead.loader import Refusal
from bulkhead.testing import load, run_hook

PLUGINS = pathlib.Path(__file__).resolve().parents[3] / "plugins"


def make(name, **given):
    """A shipped plugin by its file's stem, constructed with `given`."""
    return load(str(PLUGINS / f"{name}.py"), **given)


def assert_refused(name, words, **given):
    """The host refuses `given` in a sentence that holds `words` (a regular expression)."""
    with pytest.raises(Refusal, match=words):
        make(name, **given)


def module_of(plugin):
    return sys.modules[type(plugin).__module__]


def restarted(plugin, name, **given):
    """What a host that starts anew has: the same arguments, and the state of `plugin`."""
    fresh = make(name, **given)
    run_hook(fresh, "load_state_dict", state=run_hook(plugin, "state_dict").value)
    return fresh
