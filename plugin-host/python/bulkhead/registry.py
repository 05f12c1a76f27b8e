"""``@register("name")``: a short name for a plugin's class, which the run file may use instead of the class's own.

Which names a file has is decided by the loader, from the classes that it sees there; nothing is refused here but what
is no class or no name.  Used while a plugin is imported.
"""

from __future__ import annotations

import inspect
from typing import Any, Callable, Dict, List, TypeVar

from bulkhead.plugin import Plugin

_Class = TypeVar("_Class", bound=type)
_names: Dict[type, str] = {}  # in the order of registration


def register(name: str) -> Callable[[_Class], _Class]:
    """``@register("ema") class Ema(Plugin): …`` can be used as ``use: file.py:ema`` and as ``use: file.py:Ema``.

    TypeError or ValueError, one sentence, when the name is none or what is decorated is no plugin.  Two plugins of one
    name in a file are refused when the file is loaded.
    """
    if not isinstance(name, str):
        raise TypeError(f'register needs a name, as in @register("ema"), not {name!r:.64}')
    if not name or ":" in name or name != name.strip():
        raise ValueError(f"register: {name!r} cannot be written in `use: FILE:NAME`; take letters, digits, - or _")

    def remember(cls: _Class) -> _Class:
        if not inspect.isclass(cls) or not issubclass(cls, Plugin):
            raise TypeError(f'@register("{name}") is for classes derived from bulkhead.Plugin, not {cls!r:.64}')
        if cls in _names:
            raise ValueError(f'{cls.__name__} is registered as "{_names[cls]}" already, so it cannot be "{name}" too')
        _names[cls] = name
        return cls

    return remember


def name_of(cls: type) -> str:
    """Its short name; empty when it has none.  A subclass does not inherit one."""
    return _names.get(cls, "")


def registered_in(module: str) -> List[type]:
    """The classes that the module of this name registered, also those it has since given up the names of."""
    return [cls for cls in _names if cls.__module__ == module]


def forget(module: str) -> None:
    """The module of this name is about to be run again."""
    for cls in registered_in(module):
        del _names[cls]


def place_of(cls: Any) -> str:
    """For people: "Ema (plug.py:12)"; the line where it can be found."""
    try:
        file, (_, line) = inspect.getsourcefile(cls) or "?", inspect.getsourcelines(cls)
        return f"{cls.__name__} ({file.rsplit('/', 1)[-1]}:{line})"
    except (OSError, TypeError):
        return cls.__name__
