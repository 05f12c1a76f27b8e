"""The command line: what to check and how; the report on stdout, refusals on stderr."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from typing import Any, List, NoReturn, Optional, Sequence, Tuple

from bulkhead.check.checker import Checker, Subject
from bulkhead.check.inputs import DATA
from bulkhead.check.process import python_command
from bulkhead.check.session import NotLoaded

CLEAN, MISBEHAVED, REFUSED = 0, 1, 2
_USERS_FAULT = ("find", "arguments")  # stages of loading; the others are the plugin's own …
_REFUSES = "ValueError"  # … but for this from a constructor: how a plugin says that an argument is wrong


class Wrong(Exception):
    """A wrong file or argument; one sentence."""


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Exit status 0 clean, 1 the plugin misbehaved, 2 refused."""
    signal.signal(signal.SIGTERM, _interrupted)  # so that the host is ended first
    options = _parser().parse_args(arguments)
    try:
        subject = _subject(options)
        checker = Checker(subject)
        report = checker.check()
    except Wrong as wrong:
        print(f"bulkhead plugin check: {wrong}", file=sys.stderr)
        return REFUSED
    except NotLoaded as refused:
        return _not_loaded(refused)
    except OSError as error:
        print(f"bulkhead plugin check: the host cannot be started: {error}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print("bulkhead plugin check: interrupted", file=sys.stderr)
        return 130
    report.print(_title(options.file, checker.traits), sys.stdout)
    return CLEAN if report.clean else MISBEHAVED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bulkhead plugin check",
        description="Starts a plugin alone in its process, calls every hook that it has, and says what came of it.",
        epilog="Exit status: 0 clean, 1 the plugin misbehaved, 2 refused.",
    )
    add = parser.add_argument
    add("file", metavar="FILE", help="file.py, file.py:Class, a package folder, or a native plugin.so")
    add("--with", dest="given", metavar="JSON", default="{}", help="the constructor's arguments, a JSON object")
    add("--data", choices=DATA,
        help="the form of batches (default: captions with sample hooks, rows with those of rows, else text)")  # fmt: skip
    add("--scope", choices=("rank", "node", "job"), default="rank")
    add("--steps", type=int, default=4, metavar="N", help="steps of the run that it takes part in (default 4)")
    add("--deadline", type=float, default=30.0, metavar="SECONDS",
        help="for a call; ten times as much for import, constructor and setup (default 30)")  # fmt: skip
    add("--native-host", metavar="PATH", default="", help="the host of native plugins, bulkhead-plugin-host")
    return parser


def _subject(options: argparse.Namespace) -> Subject:
    file, name = _split(options.file)
    if not os.path.exists(file):
        raise Wrong(f"{file} does not exist")
    if options.steps < 1:
        raise Wrong(f"--steps must be 1 or more, not {options.steps}")
    if not 0 < options.deadline <= 3600:
        raise Wrong(f"--deadline must be above 0 and at most 3600 seconds, not {options.deadline:g}")
    native = file.endswith(".so")
    if native and name:
        raise Wrong(f'a native plugin has one class, so ":{name}" says nothing')
    config = {
        "use": options.file, "name": "check", "with": _given(options.given), "scope": options.scope,
        "language": "cpp" if native else "python", "file": os.path.abspath(file), "module": "", "class_name": name,
    }  # fmt: skip
    environment = {key: value for key, value in os.environ.items() if not key.startswith("BULKHEAD_")}
    if native:
        command = [_native_host(options.native_host)]
    else:
        command, root = python_command()
        environment["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [environment.get("PYTHONPATH")])])
    return Subject(command, environment, config, options.scope, options.data or "", options.steps, options.deadline)


def _split(use: str) -> Tuple[str, str]:
    """A path and the class behind a colon; a path may have colons of its own."""
    file, colon, name = use.rpartition(":")
    return (file, name) if colon and name and not os.path.exists(use) else (use, "")


def _given(text: str) -> dict:
    try:
        given: Any = json.loads(text)
    except ValueError as error:
        raise Wrong(f"--with is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise Wrong('--with must be a JSON object, as in {"patience": 3}')
    return given


def _native_host(path: str) -> str:
    if not path:
        raise Wrong("a native plugin needs --native-host PATH, the bulkhead-plugin-host that was built")
    if not os.access(path, os.X_OK) or os.path.isdir(path):
        raise Wrong(f"--native-host: {path} is not a program")
    return os.path.abspath(path)


def _not_loaded(refused: NotLoaded) -> int:
    says_no = refused.stage == "constructor" and refused.failure["type"] == _REFUSES
    given = "; arguments are given by --with JSON" if says_no or refused.stage == "arguments" else ""
    print(f"bulkhead plugin check: {refused}{given}", file=sys.stderr)
    if says_no or refused.stage in _USERS_FAULT:
        return REFUSED
    lines: List[str] = refused.failure.get("traceback", "").rstrip().splitlines()
    for line in lines:
        print(f"    {line}", file=sys.stderr)
    return MISBEHAVED


def _title(file: str, traits: dict) -> str:
    if not traits:
        return f"{file}:"
    hooks = len(traits["hooks"])
    return f"{file}: {traits['class_name']}, {traits['language']}, {hooks} hook{'s' if hooks != 1 else ''}"


def _interrupted(*_: Any) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
