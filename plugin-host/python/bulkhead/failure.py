"""Exceptions as answers: {type, message, traceback}, each cut to what a message may hold.  Pure functions."""

from __future__ import annotations

import traceback

from bulkhead import wire

PLUGIN_MODULES = "bulkhead_plugin_"  # how the names of modules that the host makes of plugins' files begin
_MAX_MESSAGE = 16 << 10  # characters
_MAX_TRACEBACK = 64 << 10


def failure_of(error: BaseException) -> dict:
    """The traceback begins where the plugin's code does; of a very long one both ends are kept."""
    return {
        "type": type_name(error),
        "message": wire.clean_text(_text(error), _MAX_MESSAGE),
        "traceback": wire.clean_text(_cut(_traceback(error)), _MAX_TRACEBACK),
    }


def sentence(message: str, kind: str = "Refused") -> dict:
    """A failure that is nobody's exception."""
    return {"type": kind, "message": wire.clean_text(message, _MAX_MESSAGE), "traceback": ""}


def type_name(error: BaseException) -> str:
    """With its module, but for builtins and for a plugin's own file, whose module has a name that only the host uses."""
    cls = type(error)
    short = cls.__module__ == "builtins" or cls.__module__.startswith(PLUGIN_MODULES)
    return cls.__qualname__ if short else f"{cls.__module__}.{cls.__qualname__}"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # its __str__ is the plugin's
        return "an exception that cannot be printed"


def _traceback(error: BaseException) -> str:
    where = error.__traceback__
    while where is not None and where.tb_next is not None and _is_ours(where):
        where = where.tb_next
    try:
        return "".join(traceback.format_exception(type(error), error, where))
    except Exception:
        return ""


def _is_ours(where) -> bool:
    name = where.tb_frame.f_globals.get("__name__", "")
    return name.startswith(("bulkhead.", "importlib.", "_frozen_importlib"))


def _cut(text: str) -> str:
    if len(text) <= _MAX_TRACEBACK:
        return text
    half = _MAX_TRACEBACK // 2 - 16
    return f"{text[:half]}\n… cut …\n{text[-half:]}"
