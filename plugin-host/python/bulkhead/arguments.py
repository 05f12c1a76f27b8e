"""The run file's `with` against a constructor's signature: names, what is missing, and simple types.

Only annotations whose meaning is plain are checked (bool, int, float, str, None, list, tuple, dict, Literal, Optional
and Union of these); any other is the constructor's own business.  Pure functions.
"""

from __future__ import annotations

import inspect
import types
import typing
from typing import Any, Dict, Tuple

from bulkhead.hooks import did_you_mean

_SIMPLE = {bool: "a boolean", int: "an integer", float: "a number", str: "a string", type(None): "null"}
_UNIONS = (typing.Union, getattr(types, "UnionType", typing.Union))


class BadArgument(Exception):
    """`name` is what is wrong in `with`; the message is one sentence."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


def fit(cls: type, given: Dict[str, Any]) -> Dict[str, Any]:
    """`given` as keyword arguments for `cls`, an int for a float made one.  BadArgument otherwise."""
    parameters, takes_any = _parameters(cls)
    for name in given:
        if name not in parameters and not takes_any:
            if not parameters:
                raise BadArgument(name, f"with.{name}: {cls.__name__} takes no arguments")
            hint = did_you_mean(name, parameters) or f"; it has {', '.join(parameters)}"
            raise BadArgument(name, f'with.{name}: {cls.__name__} has no argument "{name}"{hint}')
    for name, parameter in parameters.items():
        if name not in given and parameter.default is inspect.Parameter.empty:
            raise BadArgument(name, f"with.{name} is missing: {cls.__name__} needs it")
    hints = _hints(cls)
    return {name: _fit_one(name, value, hints.get(name, Any)) for name, value in given.items()}


def _parameters(cls: type) -> Tuple[Dict[str, inspect.Parameter], bool]:
    """(those that can be given by keyword, whether there is a **kwargs)."""
    if cls.__init__ is object.__init__:
        return {}, False
    kinds = inspect.Parameter
    named, takes_any = {}, False
    for index, parameter in enumerate(inspect.signature(cls.__init__).parameters.values()):
        if parameter.kind is kinds.VAR_KEYWORD:
            takes_any = True
        elif parameter.kind is kinds.POSITIONAL_ONLY and index > 0 and parameter.default is kinds.empty:
            raise BadArgument(
                parameter.name,
                f"{cls.__name__}.__init__ takes {parameter.name} by position only; arguments are given by name",
            )
        elif index > 0 and parameter.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY):
            named[parameter.name] = parameter
    return named, takes_any


def _hints(cls: type) -> Dict[str, Any]:
    try:
        return typing.get_type_hints(cls.__init__)
    except Exception:  # an annotation may name anything, e.g. a class that is imported for type checkers only
        return {}


def _fit_one(name: str, value: Any, hint: Any) -> Any:
    fits, value = _fit(value, hint)
    if not fits:
        raise BadArgument(name, f"with.{name} must be {describe(hint)}, not {_shown(value)}")
    return value


def _fit(value: Any, hint: Any) -> Tuple[bool, Any]:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number, float(value) if number else value
    if hint in _SIMPLE:
        return type(value) is hint, value
    if origin in _UNIONS:
        exact = next((fit[1] for fit in (_fit(value, part) for part in inner) if fit[0] and fit[1] is value), None)
        if exact is not None:
            return True, exact
        return next((fit for fit in (_fit(value, part) for part in inner) if fit[0]), (False, value))
    if origin is typing.Literal:
        return any(value == choice and type(value) is type(choice) for choice in inner), value
    if hint in (list, dict):
        return isinstance(value, hint), value
    if origin is list:
        return _fit_items(value, inner[0], list)
    if origin is tuple and len(inner) == 2 and inner[1] is Ellipsis:
        return _fit_items(value, inner[0], tuple)
    if origin is dict:
        return isinstance(value, dict), value
    return True, value


def _fit_items(value: Any, hint: Any, kind: type) -> Tuple[bool, Any]:
    if not isinstance(value, list):
        return False, value
    fitted = [_fit(item, hint) for item in value]
    return all(fits for fits, _ in fitted), kind(item for _, item in fitted)


def describe(hint: Any) -> str:
    """A type for people: "an integer or null"."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint in _SIMPLE:
        return _SIMPLE[hint]
    if origin in _UNIONS:
        return " or ".join(describe(part) for part in inner)
    if origin is typing.Literal:
        return "one of " + ", ".join(_shown(choice) for choice in inner)
    if hint is list or origin in (list, tuple):
        plural = {bool: "booleans", int: "integers", float: "numbers", str: "strings"}.get(inner[0] if inner else None)
        return f"a list of {plural}" if plural else "a list"
    if hint is dict or origin is dict:
        return "a map"
    return getattr(hint, "__name__", str(hint))


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)
