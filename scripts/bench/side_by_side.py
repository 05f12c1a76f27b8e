"""Runs of bulkhead compared side by side: the cases take turns, round after round, so that whatever else the machine
does falls on all of them alike.  What comes out is a table for people or, with --json, one object a line:
{bench, case, metric, unit, min, median, p99, n} and each parameter as a key of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Sequence

ROOT = Path(__file__).resolve().parents[2]


class RunFailed(Exception):
    """A run of the bench did not end well; its last lines."""


def run(run_file: str, name: str, directory: Path, ranks: int, environment: Dict[str, str]) -> dict:
    """Runs one run file to its end; its summary.json."""
    path = directory / f"{name}.yaml"
    path.write_text(run_file, encoding="utf-8")
    runs = directory / "runs"
    command = [ROOT / "scripts/bulkhead-run", "--nproc-per-node", str(ranks), "--run-dir", runs, path]
    ended = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    written = sorted(runs.glob(f"{name}-*/summary.json"))
    if ended.returncode != 0 or not written:
        raise RunFailed(f"{name}: exit status {ended.returncode}\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}")
    summary = json.loads(written[-1].read_text(encoding="utf-8"))
    shutil.rmtree(runs)
    return summary


@contextlib.contextmanager
def working_directory() -> Iterator[Path]:
    """Gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="bulkhead-bench-") as directory:
        yield Path(directory)


def in_turns(cases: Sequence[str], rounds: int, measure: Callable[[str, Path], dict]) -> Dict[str, List[dict]]:
    """`rounds` measurements of each case, in turns; each second round in the opposite order."""
    results: Dict[str, List[dict]] = {case: [] for case in cases}
    with working_directory() as directory:
        for turn in range(rounds):
            for case in cases if turn % 2 == 0 else reversed(cases):
                if sys.stderr.isatty():
                    print(f"\r\033[Kround {turn + 1} of {rounds}: {case}", end="", file=sys.stderr, flush=True)
                results[case].append(measure(case, directory))
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    return results


def statistics_of(values: Sequence[float]) -> dict:
    ordered = sorted(values)
    return {
        "min": ordered[0],
        "median": statistics.median(ordered),
        "p99": ordered[max(0, math.ceil(0.99 * len(ordered)) - 1)],
        "n": len(ordered),
    }


def line(bench: str, case: str, metric: str, unit: str, values: Sequence[float], **parameters: object) -> dict:
    return {"bench": bench, "case": case, "metric": metric, "unit": unit, **statistics_of(values), **parameters}


def add_block(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--block", type=int, default=25, help="steps with the plugins, then as many without")


def taking_turns(block: int) -> Dict[str, str]:
    """The environment of a run in which blocks of steps with and without the plugins' step hooks and transforms of
    batches take turns: two runs of the same file differ by more than a plugin costs."""
    return {"BULKHEAD_BENCH_QUIET_STEPS": str(block)}


def with_and_without(bench: str, results: Dict[str, List[dict]], **parameters: object) -> List[dict]:
    """Of such runs' summaries by case: the median step with plugins, and its ratio to that without."""
    lines = []
    for case, summaries in results.items():
        steps = [summary["step_ms"]["p50"] for summary in summaries]
        ratios = [step / summary["quiet_step_ms"]["p50"] for step, summary in zip(steps, summaries)]
        lines.append(line(bench, case, "step", "ms", steps, **parameters))
        lines.append(line(bench, case, "ratio", "", ratios, **parameters))
    return lines


def show(lines: Sequence[dict], as_json: bool, note: str = "") -> None:
    if as_json:
        for entry in lines:
            print(json.dumps(entry))
        return
    width = max(len(f"{entry['case']}") for entry in lines)
    print(f"{'case':{width}}  {'metric':22} {'median':>10} {'min':>10} {'p99':>10}  unit   n")
    for entry in lines:
        numbers = " ".join(f"{entry[key]:10.3f}" for key in ("median", "min", "p99"))
        print(f"{entry['case']:{width}}  {entry['metric']:22} {numbers}  {entry['unit']:5} {entry['n']}")
    if note:
        print(note)


def parser(description: str, rounds: int) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--json", action="store_true", help="one JSON object a line")
    made.add_argument("--rounds", type=int, default=rounds, help=f"measurements of each case (default {rounds})")
    return made
