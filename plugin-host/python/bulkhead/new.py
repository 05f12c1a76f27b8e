"""``python -m bulkhead.new NAME --lang py|cpp``: writes a plugin that works, and a test of it, to start from.

Nothing that exists is written over.  Exit status: 0 written, 2 refused.
"""

from __future__ import annotations

import argparse
import keyword
import os
import pathlib
import re
import shlex
import sys
from typing import Dict, NoReturn, Optional, Sequence

from bulkhead import new_templates as templates

REFUSED = 2
_OURS = ("bulkhead", "plugin")  # a module or class of this name would hide ours
_CPP_WORDS = frozenset(
    """alignas alignof and asm auto bitand bitor bool case catch char concept const consteval constexpr
    constinit decltype default delete do double dynamic_cast enum explicit export extern float friend goto
    inline int long main mutable namespace new noexcept not nullptr operator or private protected public
    register requires short signed sizeof static static_assert std struct switch template this throw true
    false typedef typeid typename union unsigned using virtual void volatile wchar_t xor""".split()
)


class Refused(Exception):
    """One sentence."""


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Writes the files, says what to do with them."""
    options = _parser().parse_args(arguments)
    try:
        files = _files(options.name, options.lang, _folder(options.dir))
        _write(files)
    except Refused as refused:
        print(f"bulkhead plugin new: {refused}", file=sys.stderr)
        return REFUSED
    except OSError as error:
        print(f"bulkhead plugin new: {error.filename}: {error.strerror}", file=sys.stderr)
        return REFUSED
    plugin, test = files
    print(f"wrote {plugin} and its test {test}")
    if options.lang == "py":
        print(f"test it:  {_with_package()}{shlex.quote(sys.executable)} -m pytest {shlex.quote(str(test))}")
        print(f"try it:   bulkhead plugin check {shlex.quote(str(plugin))}")
        print(f"use it:   plugins: [{{use: {plugin.name}, with: {{limit: 10.0}}}}]")
    else:
        print(f"build and test it:  {shlex.quote(str(test))}")
        print(f"use it:             plugins: [{{use: {plugin.stem}.so, with: {{limit: 10.0}}}}]")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bulkhead plugin new",
        description="Writes a plugin that works, and a test of it, to start from.",
        epilog="Exit status: 0 written, 2 refused.",
    )
    parser.add_argument("name", metavar="NAME", help="of the plugin and its file: letters, digits and _")
    parser.add_argument("--lang", choices=("py", "cpp"), default="py", help="its language (default py)")
    parser.add_argument("--dir", default=".", metavar="DIR", help="where to write it (default: here)")
    return parser


def class_name(name: str) -> str:
    """ "loss_guard" → "LossGuard"; a name that has capitals keeps them."""
    return "".join(part[0].upper() + part[1:] for part in name.split("_") if part)


def _files(name: str, language: str, folder: pathlib.Path) -> Dict[pathlib.Path, str]:
    """Path → text: the plugin, then its test."""
    _check(name, language)
    values = {"NAME": name, "CLASS": class_name(name), "SDK": shlex.quote(str(_sdk()))}
    plugin, test = (
        (templates.PYTHON, templates.PYTHON_TEST) if language == "py" else (templates.CPP, templates.CPP_TEST)
    )
    test_name = f"test_{name}.py" if language == "py" else f"test_{name}.sh"
    return {folder / f"{name}.{language}": _filled(plugin, values), folder / test_name: _filled(test, values)}


def _check(name: str, language: str) -> None:
    if not (name.isascii() and name.isidentifier()):
        near = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")
        hint = f'; "{near}" would do' if near.isidentifier() and not keyword.iskeyword(near) else ""
        raise Refused(f'"{name}" cannot be a plugin\'s name: it must be letters, digits and _, no digit first{hint}')
    known = getattr(sys, "stdlib_module_names", frozenset(sys.builtin_module_names))  # Python 3.9 lists fewer
    reserved = "bulkhead's own" if name.lower() in _OURS else ""
    if keyword.iskeyword(name) or (language == "cpp" and name in _CPP_WORDS):
        reserved = "a word of the language"
    elif language == "py" and name in known:
        reserved = "a module of Python's own"
    if not reserved and not class_name(name):
        reserved = "no name"
    if reserved:
        raise Refused(f'"{name}" cannot be a plugin\'s name: it is {reserved}; "my_{name.strip("_")}" would do')


def _folder(path: str) -> pathlib.Path:
    folder = pathlib.Path(path)
    if not folder.is_dir():
        raise Refused(f"--dir: {path} is not a folder")
    return folder


def _sdk() -> pathlib.Path:
    return pathlib.Path(__file__).resolve().parents[2] / "sdk" / "include"


def _with_package() -> str:
    """What a command line needs in front, so that its Python finds this package."""
    root = pathlib.Path(__file__).resolve().parents[1]
    return "" if root.name in ("site-packages", "dist-packages") else f"PYTHONPATH={shlex.quote(str(root))} "


def _filled(template: str, values: Dict[str, str]) -> str:
    return re.sub(r"@(\w+)@", lambda found: values[found[1]], template)


def _write(files: Dict[pathlib.Path, str]) -> None:
    for path in files:
        if os.path.lexists(path):
            raise Refused(f"{path} exists already; choose another name or --dir")
    for path, text in files.items():
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
        if path.suffix == ".sh":
            path.chmod(0o755)


def run() -> NoReturn:
    sys.exit(main())


if __name__ == "__main__":
    run()
