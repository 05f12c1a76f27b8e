"""What came of a check: a table of hooks, and below it what went wrong, each thing once.

Collects and prints; decides nothing but whether the plugin misbehaved.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Dict, List, TextIO, Tuple

from bulkhead.hooks import HOOKS


@dataclass
class HookReport:
    """The calls of one hook."""

    seconds: List[float] = field(default_factory=list)
    results: Counter = field(default_factory=Counter)

    @property
    def calls(self) -> int:
        return sum(self.results.values())


class Report:
    """Findings in the order in which they came."""

    def __init__(self) -> None:
        self.hooks: Dict[str, HookReport] = {}
        self._problems: Dict[Tuple[str, str], List[str]] = {}  # (hook, sentence) → details, one per time
        self.notes: List[str] = []

    @property
    def clean(self) -> bool:
        return not self._problems

    def expect(self, hooks: List[str]) -> None:
        """These have a row even if they are never called."""
        for hook in HOOKS:
            if hook in hooks:
                self.hooks.setdefault(hook, HookReport())

    def called(self, hook: str, result: str, seconds: float = -1.0) -> None:
        """`seconds` inside the hook; negative where nobody knows."""
        row = self.hooks.setdefault(hook, HookReport())
        row.results[result] += 1
        if seconds >= 0:
            row.seconds.append(seconds)

    def problem(self, hook: str, sentence: str, detail: str = "") -> None:
        """The plugin misbehaved; `detail` (a traceback) is shown for the first time only."""
        self._problems.setdefault((hook, sentence), []).append(detail)

    def note(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes.append(sentence)

    def print(self, title: str, out: TextIO) -> None:
        print(title, file=out)
        rows = [("hook", "calls", "p50", "p99", "result")]
        for hook, row in self.hooks.items():
            times = [_time(_percentile(row.seconds, share)) if row.seconds else "" for share in (0.5, 0.99)]
            rows.append((hook, str(row.calls), *times, _summary(row.results) or "not called"))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        for row in rows:
            numbers = "  ".join(cell.rjust(width) for cell, width in zip(row[1:4], widths[1:]))
            print(f"  {row[0].ljust(widths[0])}  {numbers}  {row[4]}", file=out)
        for (hook, sentence), details in self._problems.items():
            times = f" ({len(details)} times)" if len(details) > 1 else ""
            print(f"\n{hook}: {sentence}{times}" if hook else f"\n{sentence}", file=out)
            for line in details[0].rstrip().splitlines():
                print(f"    {line}", file=out)
        for sentence in self.notes:
            print(f"\nnote: {sentence}", file=out)
        print(f"\n{'clean' if self.clean else 'the plugin misbehaved'}", file=out)


def _summary(results: Counter) -> str:
    parts = [f"{result} ×{count}" if len(results) > 1 else result for result, count in results.items()]
    return ", ".join(parts)


def _percentile(values: List[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def _time(seconds: float) -> str:
    for factor, unit in ((1e6, "µs"), (1e3, "ms")):
        if seconds * factor < 1000:
            return f"{seconds * factor:.3g} {unit}" if seconds * factor < 100 else f"{seconds * factor:.0f} {unit}"
    return f"{seconds:.3g} s"
