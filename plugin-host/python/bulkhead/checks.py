"""What is wrong with a plugin's class, found before it is constructed: names, signatures, class attributes.

Pure functions; each problem is a BadPlugin with one sentence.
"""

from __future__ import annotations

import inspect
from typing import Any, Dict, List

from bulkhead.hooks import (
    CLAIMS, COLLATE, HOOK_PREFIXES, HOOKS, ROWS, SAMPLE, STATE, TRANSFORM, did_you_mean, mistaken_hook, nearest_hook,
)  # fmt: skip
from bulkhead.plugin import Plugin


class BadPlugin(Exception):
    """One sentence."""


def own_names(cls: type) -> Dict[str, Any]:
    """What the class and its bases below Plugin define."""
    names: Dict[str, Any] = {}
    for base in cls.__mro__:
        if base is not Plugin and base is not object:
            for name, value in vars(base).items():
                names.setdefault(name, value)
    return names


def overridden_hooks(cls: type) -> List[str]:
    return [hook for hook in HOOKS if getattr(cls, hook) is not getattr(Plugin, hook)]


def transforms_of(hooks: List[str]) -> List[str]:
    return [hook for hook in hooks if HOOKS[hook] in (TRANSFORM, SAMPLE, ROWS, COLLATE)]


def check_class(cls: type) -> None:
    for name, value in own_names(cls).items():
        _check_name(cls, name, value)
    for hook in overridden_hooks(cls):
        _check_signature(cls, hook)
    _check_attributes(cls)


def check_scope(cls: type, hooks: List[str], scope: str) -> None:
    # The data set stage is rank 0's alone: one process for the job sees what it would see in scope rank.
    transforms = [hook for hook in transforms_of(hooks) if scope != "job" or HOOKS[hook] != ROWS]
    if transforms and scope != "rank" and not cls.stateless:
        raise BadPlugin(
            f"{cls.__name__} has {transforms[0]} and scope {scope}, so it must say `stateless = True`; "
            f"use scope rank to keep state"
        )


def _check_name(cls: type, name: str, value: Any) -> None:
    if not callable(value) and not isinstance(value, (staticmethod, classmethod)):
        if name in HOOKS:
            raise BadPlugin(f"{cls.__name__}.{name} is a hook and must be a method, not {value!r:.64}")
        return
    if name in HOOKS:
        return
    if name.startswith(HOOK_PREFIXES):
        raise BadPlugin(f'{cls.__name__}.{name}: there is no hook "{name}"; did you mean "{nearest_hook(name)}"?')
    meant = mistaken_hook(name)
    if meant:
        raise BadPlugin(
            f'{cls.__name__}.{name} is no hook but is named almost like one: did you mean "{meant}"? '
            f"If not, begin its name with an underscore"
        )


_ARGUMENTS = {
    "configure": ["config", "ctx"], "load_state_dict": ["state", "ctx"], "preprocess": ["rows", "ctx"],
    "keep": ["row", "ctx"], "encode": ["conversation", "ctx"], "collate": ["samples", "ctx"],
}  # fmt: skip


def arguments_of(hook: str) -> List[str]:
    """Names of what a hook is called with; state hooks may leave out ctx."""
    if HOOKS[hook] == TRANSFORM:
        return ["batch", "ctx"]
    if HOOKS[hook] == SAMPLE:
        return [hook.split("_")[1], "ctx"]
    return _ARGUMENTS.get(hook, ["ctx"])


def takes(function: Any, count: int) -> bool:
    """Whether a call with `count` positional arguments binds."""
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature
        return True
    return True


def _check_signature(cls: type, hook: str) -> None:
    # Read from the class without binding: a plain function gets self besides.
    raw = inspect.getattr_static(cls, hook)
    function, bound = (raw.__func__, isinstance(raw, classmethod)) if hasattr(raw, "__func__") else (raw, True)
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise BadPlugin(f"{cls.__name__}.{hook} must be a plain method: a coroutine or generator is never run")
    names = arguments_of(hook)
    counts = {len(names), len(names) - 1} if HOOKS[hook] == STATE else {len(names)}
    if any(takes(function, count + bound) for count in counts):
        return
    wanted = ", ".join(["self", *names]) if HOOKS[hook] != STATE else ", ".join(["self", *names[:-1]])
    raise BadPlugin(f"{cls.__name__}.{hook} must take ({wanted}), not {inspect.signature(function)}")


def _check_attributes(cls: type) -> None:
    for name in ("steers", "stateless", "seeded"):
        if not isinstance(getattr(cls, name), bool):
            raise BadPlugin(f"{cls.__name__}.{name} must be True or False, not {getattr(cls, name)!r:.64}")
    for name in ("claims", "transient"):
        value = getattr(cls, name)
        if not isinstance(value, (set, frozenset, list, tuple)) or not all(isinstance(item, str) for item in value):
            raise BadPlugin(f"{cls.__name__}.{name} must be a set of names, not {value!r:.64}")
    for claim in sorted(cls.claims):
        if claim not in CLAIMS:
            hint = did_you_mean(claim, CLAIMS) or f"; claims are {', '.join(CLAIMS)}"
            raise BadPlugin(f'{cls.__name__}.claims: there is no claim "{claim}"{hint}')
    raises = cls.raises
    if not isinstance(raises, tuple) or not all(inspect.isclass(t) and issubclass(t, BaseException) for t in raises):
        raise BadPlugin(f"{cls.__name__}.raises must be a tuple of exception types, not {raises!r:.64}")
    transforms = transforms_of(overridden_hooks(cls))
    if not cls.steers and transforms:
        raise BadPlugin(f"{cls.__name__} says `steers = False`, so it cannot have {transforms[0]}: it only watches")
