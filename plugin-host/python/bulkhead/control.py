"""What a call asks of the run: ``ctx.control`` and ``ctx.set``.

Values only; nothing is sent here.  Used on the host's one thread, during the call.
"""

from __future__ import annotations

import math
import operator
from typing import Any, Dict

from bulkhead import messages, wire
from bulkhead.hooks import did_you_mean

SETTINGS = ("grad_accum", "log_every", "lr", "save_every", "validate_every")
_LARGEST = 1 << 53  # a setting travels as a double
_MAX_REASON = 4096  # characters of a stop reason


class Control:
    """What a call asks for; merged over plugins and ranks, and done by all ranks at the same step.

    Outside its call it is inert: nothing happens, nothing is raised.
    """

    __slots__ = ("_asked", "_settings", "_open")

    def __init__(self) -> None:
        self._asked: Dict[str, Any] = {}
        self._settings: Dict[str, Any] = {}
        self._open = True

    def stop(self, reason: str = "") -> None:
        """End training; the first reason given is kept for summary.json."""
        if self._open and not self._asked.get("stop"):
            self._asked["stop"] = True
            self._asked["reason"] = wire.clean_text(str(reason), _MAX_REASON)

    def stop_epoch(self) -> None:
        """End this epoch."""
        self._ask("stop_epoch")

    def save(self) -> None:
        """Write a checkpoint."""
        self._ask("save")

    def validate(self) -> None:
        """Run a validation."""
        self._ask("validate")

    def log(self) -> None:
        """Log this step's metrics, whether its turn has come or not."""
        self._ask("log")

    def set(self, name: str, value: Any) -> None:
        """As ``ctx.set``, which describes it."""
        if self._open:
            self._settings[name] = _checked(name, value)

    def asked(self) -> Dict[str, Any]:
        """For the host: what was asked for; empty for nothing."""
        if self._settings:
            self._asked["settings"] = [messages.setting(name, value) for name, value in self._settings.items()]
        return self._asked

    def close(self) -> None:
        """For the host: the call is over."""
        self._open = False

    def _ask(self, name: str) -> None:
        if self._open:
            self._asked[name] = True


def _checked(name: Any, value: Any) -> Any:
    """`value` as the setting `name` takes it; ValueError otherwise."""
    if name not in SETTINGS:
        hint = did_you_mean(name, SETTINGS) if isinstance(name, str) else ""
        raise ValueError(f"ctx.set: {name!r} cannot be set; settable are {', '.join(SETTINGS)}{hint}")
    if name == "lr":
        return None if value is None else _rate(value)
    least = 1 if name == "grad_accum" else 0
    try:
        number = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = -1
    if not least <= number < _LARGEST:
        raise ValueError(f"ctx.set: {name} must be a whole number of {least} or more, not {value!r:.64}")
    return number


def _rate(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else wire.to_float(value, "lr")
    except TypeError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"ctx.set: lr must be a finite number of 0 or more, or None, not {value!r:.64}")
    return number
