"""Puts the Python host package and the shipped plugins in reach, and gives the fixtures that several tests share."""

import functools
import importlib.util
import inspect
import os
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "plugin-host" / "python"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))


def table(names, cases):
    """Like pytest.mark.parametrize, but one test for all cases: each test is a process of ctest.  What fails says
    which case it was."""
    names, cases = names.replace(",", " ").split(), list(cases)

    def decorate(test):
        signature = inspect.signature(test)

        @functools.wraps(test)
        def run(**fixtures):
            assert cases
            for case in cases:
                given = dict(zip(names, case if len(names) > 1 else (case,)))
                try:
                    test(**fixtures, **given)
                except BaseException:
                    print(f"in the case {given!r:.500}")
                    raise

        fixtures = [parameter for name, parameter in signature.parameters.items() if name not in names]
        run.__signature__ = signature.replace(parameters=fixtures)
        return run

    return decorate


def native_hosts():
    """The native plugin hosts that were built, that of ctest's own build last, else the newest."""
    built = sorted(ROOT.glob("build/*/plugin-host/bulkhead-plugin-host"), key=os.path.getmtime)
    own = pathlib.Path(os.environ.get("BULKHEAD_BUILD_DIR", "")) / "plugin-host" / "bulkhead-plugin-host"
    return [*built, *([own] if own.is_file() else [])]


@pytest.fixture
def shipped():
    """Imports a shipped plugin's module by its stem."""

    def load(stem):
        spec = importlib.util.spec_from_file_location(f"shipped_{stem}", ROOT / "plugins" / f"{stem}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def plugin_file(tmp_path):
    """Writes a plugin file and returns the config that names it."""

    def write(text, name="plug.py", class_name="", **given):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        target = path.parent if path.name == "__init__.py" else path
        return {"use": name, "name": "plug", "with": given, "language": "python", "file": str(target), "module": "",
                "class_name": class_name}  # fmt: skip

    return write
