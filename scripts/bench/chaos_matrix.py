"""Each way in which a plugin process can fail, at each of its hooks, in both languages: once each, several to a run, and
every run must give the weights of the one in which nothing failed.

What a combination must leave is told by the run itself: its crash or hang on record, its plugin serving at the end.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple

import side_by_side

WAYS = ["segv", "abort", "kill", "exit0", "exit3", "terminate", "garbage", "hang", "stop"]
NATIVE_ONLY = ("terminate",)
# A start that hangs is found after five minutes (coordinator/README.md), so it is left to the tests.
START, SLOW = ("__init__", "configure", "setup"), ("hang", "stop")
# Hook → a step at which the run below calls it (-1: any): 30 steps, 15 to an epoch, validated and saved every 10.
HOOKS = {
    "__init__": 0, "configure": 0, "setup": 0, "on_train_start": 0, "on_epoch_start": -1, "on_step_start": 4,
    "transform_train_batch": 5, "on_backward_end": 6, "on_substep_end": 7, "on_optimizer_step_start": 8,
    "on_optimizer_step_end": 9, "on_step_end": 11, "should_stop": 12, "on_log": 13, "on_epoch_end": -1,
    "on_validate_start": 10, "transform_validate_batch": 10, "on_validate_step_end": 20, "on_validate_end": 20,
    "on_save_start": 10, "state_dict": 20, "on_save_end": 20, "on_test_start": 30, "transform_test_batch": 30,
    "on_test_step_end": 30, "on_test_end": 30, "on_train_end": 30,
}  # fmt: skip
PER_RUN = 6  # saboteurs
RANKS = 2
RUN = """
name: matrix
model: {{type: mlp, width: 32}}
data: {{type: csv, path: {root}/tests/data/csv/digits.csv, target: digit, batch_size: 10, validation_fraction: 0.3,
  test_fraction: 0.1}}
train: {{max_steps: 30, accumulate: 2, device: cpu, seed: 1, log_every: 1, validate_every: 10, validate_batches: 3,
  test: true}}
checkpoint: {{every: 10}}
plugins:
"""
ENTRY = "  - {{use: '{use}', name: {name}, deadline: 1s, with: {given}, on_failure: {{restarts: 20}}}}\n"
SABOTEURS = {"py": side_by_side.ROOT / "plugins/saboteur.py", "cpp": "saboteur.so"}


class Case(NamedTuple):
    """One combination."""

    how: str
    hook: str
    language: str


def cases() -> Iterator[Case]:
    for language in SABOTEURS:
        for how in WAYS:
            if how in NATIVE_ONLY and language != "cpp":
                continue
            for hook in HOOKS:
                if how in SLOW and hook in START:
                    continue
                yield Case(how, hook, language)


def runs_of(every: List[Case]) -> List[List[Case]]:
    """PER_RUN to a run, as many of each language in every run, so that one undisturbed run is like all of them."""
    by_language: Dict[str, List[Case]] = {language: [] for language in SABOTEURS}
    for case in every:
        by_language[case.language].append(case)
    half = PER_RUN // 2
    longest = max(map(len, by_language.values()))
    return [
        [case for mine in by_language.values() for case in mine[at : at + half]] for at in range(0, longest, half)
    ]


def run_file(chosen: List[Case], times: int) -> str:
    """Those, and as many that do nothing as are missing."""
    text = RUN.format(root=side_by_side.ROOT)
    for language, use in SABOTEURS.items():
        mine = [case for case in chosen if case.language == language]
        for number in range(PER_RUN // 2):
            case = mine[number] if number < len(mine) else None
            given = {"times": 0}
            if case is not None:
                given = {"how": case.how, "hook": case.hook, "step": HOOKS[case.hook], "rank": number % RANKS,
                         "times": times}  # fmt: skip
            text += ENTRY.format(use=use, name=f"{language}{number}", given=json.dumps(given))
    return text


def found(chosen: List[Case], summary: dict, whole: dict) -> List[dict]:
    """What each of them has left."""
    equal = summary["params_sha256"] == whole["params_sha256"]
    kept = all(summary["batches"][key] == whole["batches"][key] for key in ("trained", "lost", "duplicated"))
    ranks = sum(rank["restarts"] for rank in summary["ranks"])
    lines = []
    for language in SABOTEURS:
        for number, case in enumerate(case for case in chosen if case.language == language):
            plugin = next(one for one in summary["plugins"]
                          if (one["name"], one["rank"]) == (f"{language}{number}", number % RANKS))  # fmt: skip
            lines.append({**case._asdict(), "deaths": len(plugin["crashes"]), "state": plugin["state"],
                          "weights_equal": equal, "batches_kept": kept, "rank_deaths": ranks})  # fmt: skip
    return lines


def is_good(line: dict) -> bool:
    return (
        line["deaths"] >= 1 and line["state"] == "ready" and line["weights_equal"] and line["batches_kept"]
        and line["rank_deaths"] == 0
    )  # fmt: skip


def matrix(as_json: bool) -> int:
    """Prints a line for each combination that is not as it should be, or, as JSON, all of them; 1 if there is any."""
    lines: List[dict] = []
    every = runs_of(list(cases()))
    with side_by_side.working_directory() as directory:
        whole = _summary([], 0, directory)
        for number, chosen in enumerate(every):
            if sys.stderr.isatty():
                print(f"\r\033[Krun {number + 1} of {len(every)}", end="", file=sys.stderr, flush=True)
            lines += found(chosen, _summary(chosen, 1, directory), whole)
    bad = [line for line in lines if not is_good(line)]
    if as_json:
        for line in lines:
            print(json.dumps(line))
    else:
        for line in bad:
            print(f"{line['how']:10} {line['hook']:24} {line['language']:4} {line}")
        print(f"{len(lines)} combinations in {len(every)} runs: {len(lines) - len(bad)} left no trace, {len(bad)} did")
    return 1 if bad else 0


def _summary(chosen: List[Case], times: int, directory: Path) -> dict:
    return side_by_side.run(run_file(chosen, times), "matrix", directory, RANKS, {"OMP_NUM_THREADS": "1"})
