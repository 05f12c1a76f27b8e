"""Faults at random moments of a real training run, and what is left of it: ranks, batches, weights, speed.

The same run is made twice, undisturbed and with plugin processes failing.  Signals are sent from outside, at random
moments, to whichever process of the run serves then; what a process can only do itself (exit, hang, raise nothing but
garbage) is done by saboteurs, at random steps.  Everything follows the seed but the moment at which a signal finds its
process.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import chaos_matrix
import side_by_side

OUTSIDE = {"kill": signal.SIGKILL, "segv": signal.SIGSEGV, "abort": signal.SIGABRT, "bus": signal.SIGBUS,
           "stop": signal.SIGSTOP}  # fmt: skip
INSIDE = ["exit0", "exit3", "garbage", "hang"]
KINDS = [*OUTSIDE, *INSIDE]
SLOW = ("stop", "hang")  # found out by the deadline alone
PROBE_STEPS = 300
_PAGE = os.sysconf("SC_PAGE_SIZE")
RUN = """
name: chaos
model: {{type: mlp, layers: 3, width: {width}}}
data: {{type: csv, path: {root}/tests/data/csv/digits.csv, target: digit, batch_size: 64}}
optimizer: {{type: adamw, lr: 1.0e-3}}
train: {{max_steps: {steps}, device: cpu, seed: {seed}, log_every: 0, validate_every: {quarter}}}
checkpoint: {{every: {quarter}, keep: 1}}
plugins:
"""
ENTRY = (
    "  - {{use: '{use}', name: {name}, deadline: {deadline}, with: {given},"
    " on_failure: {{restarts: 1000000, within: 1h, then: abort}}}}\n"
)
SABOTEURS = {"py": side_by_side.ROOT / "plugins/saboteur.py", "cpp": "saboteur.so"}


def run_file(options, steps: int, strikes: Dict[str, List[int]], times: int) -> str:
    """`strikes`: name of an INSIDE kind → steps at which its saboteur strikes; empty ones still change batches."""
    text = RUN.format(
        root=side_by_side.ROOT, width=options.width, steps=steps, seed=options.seed % 2**31, quarter=max(1, steps // 4)
    )
    for number, kind in enumerate(INSIDE):
        for language, use in SABOTEURS.items():
            mine = strikes.get(f"{kind}-{language}", [])
            hook = "transform_train_batch" if number % 2 == 0 else "on_step_end"
            given = {"how": kind, "hook": hook, "step": mine or [2**31], "rank": number % options.ranks,
                     "times": times}
            text += ENTRY.format(
                use=use, name=f"{kind}-{language}", deadline=options.deadline, given=json.dumps(given)
            )
    return text


class Run:
    """One run; its events as they come."""

    def __init__(self, text: str, directory: Path, name: str, ranks: int) -> None:
        file = directory / f"{name}.yaml"
        file.write_text(text, encoding="utf-8")
        self._runs = directory / name
        command = [side_by_side.ROOT / "scripts/bulkhead-run", "--nproc-per-node", str(ranks), "--run-dir", self._runs,
                   file]  # fmt: skip
        self._output = (directory / f"{name}.out").open("w+")
        self.process = subprocess.Popen(
            list(map(str, command)), stdout=self._output, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        self._seen = 0
        self.serving: Dict[Tuple[str, int], int] = {}  # (plugin, rank) → pid
        self.ranks: Dict[int, int] = {}  # rank → pid
        self.sizes: List[dict] = []  # what the ranks hold, over time
        self.events: List[dict] = []

    def look(self) -> None:
        """Reads what events.jsonl has since."""
        for path in self._runs.glob("*/events.jsonl"):
            with path.open(encoding="utf-8") as file:
                file.seek(self._seen)
                for line in file:
                    if not line.endswith("\n"):
                        break
                    self._seen += len(line.encode())
                    self._take(json.loads(line))

    def _take(self, event: dict) -> None:
        self.events.append(event)
        key = (event.get("plugin"), event.get("rank"))
        if event["event"] in ("start", "restart") and "plugin" not in event:
            self.ranks[event["rank"]] = event["pid"]
        elif event["event"] in ("ready", "restart") and "pid" in event:
            self.serving[key] = event["pid"]
        elif event["event"] in ("crash", "hang") and "plugin" in event:
            self.serving.pop(key, None)

    def weigh(self) -> None:
        """Notes how many descriptors and how much memory the rank that has most of it holds."""
        fds, resident = [], []
        for pid in self.ranks.values():
            try:
                fds.append(len(os.listdir(f"/proc/{pid}/fd")))
                resident.append(int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE / 2**20)
            except (FileNotFoundError, ProcessLookupError, IndexError):
                return
        self.sizes.append({"fds": max(fds), "rss_mib": round(max(resident), 1)})

    def finish(self) -> dict:
        """Its summary.json; RunFailed when it did not train to its end."""
        status = self.process.wait()
        self.look()
        self._output.seek(0)
        output = self._output.read()
        self._output.close()
        written = list(self._runs.glob("*/summary.json"))
        if status != 0 or not written:
            raise side_by_side.RunFailed(f"exit status {status}\n{output[-4000:]}")
        return json.loads(written[0].read_text(encoding="utf-8"))


class Fault:
    """A signal that was sent, until its process serves again."""

    def __init__(self, kind: str, key: Tuple[str, int], sent: float) -> None:
        self.kind, self.key, self.sent = kind, key, sent


def disturb(run: Run, plan: List[Tuple[float, str]], rng: random.Random) -> List[Fault]:
    """Sends each signal when its time has come and somebody serves; returns them as sent."""
    sent: List[Fault] = []
    while len(run.serving) == 0 and run.process.poll() is None:
        run.look()
        time.sleep(0.05)
    began = time.monotonic()
    for due, kind in plan:
        while run.process.poll() is None:
            run.look()
            if time.monotonic() - began >= due and run.serving:
                break
            time.sleep(0.005)
        if run.process.poll() is not None:
            break
        key = rng.choice(sorted(run.serving))
        pid = run.serving.pop(key)
        now = time.time()
        try:
            os.kill(pid, OUTSIDE[kind])
        except ProcessLookupError:  # it has died by itself, and is on its way back
            continue
        sent.append(Fault(kind, key, now))
        if len(sent) % 10 == 0:
            run.weigh()
    while run.process.poll() is None:
        run.look()
        time.sleep(0.05)
    return sent


def measure(events: List[dict], sent: List[Fault]) -> Tuple[Dict[str, List[float]], Dict[str, List[float]]]:
    """Milliseconds by kind: from a signal to its death being known, and to the next process being ready; of what a
    process did itself, from its death."""
    detect: Dict[str, List[float]] = {}
    recover: Dict[str, List[float]] = {}
    open_faults = list(sent)
    deaths: Dict[Tuple[str, int], Tuple[str, float]] = {}  # of those that are on their way back: kind, since
    for event in sorted(events, key=lambda event: event["time"]):
        key = (event.get("plugin"), event.get("rank"))
        if event["event"] in ("crash", "hang") and key[0] is not None:
            fault = next((one for one in open_faults if one.key == key and one.sent <= event["time"] + 0.001), None)
            if fault is None:
                deaths[key] = (_kind_by_reason(event), event["time"])
            else:
                open_faults.remove(fault)
                detect.setdefault(fault.kind, []).append(1e3 * (event["time"] - fault.sent))
                deaths[key] = (fault.kind, fault.sent)
        elif event["event"] == "restart" and key in deaths:
            kind, since = deaths.pop(key)
            recover.setdefault(kind, []).append(1e3 * (event["time"] - since))
    return detect, recover


def _kind_by_reason(event: dict) -> str:
    reason = event.get("reason", "")
    if event["event"] == "hang":
        return "hang"
    return {"exit 0": "exit0", "exit 3": "exit3"}.get(reason, reason.split(":")[0])


def spread(values: Dict[str, List[float]]) -> dict:
    def of(numbers: List[float]) -> dict:
        ordered = sorted(numbers)
        return {"p50": statistics.median(ordered), "p99": ordered[math.ceil(0.99 * len(ordered)) - 1],
                "max": ordered[-1], "n": len(ordered)}  # fmt: skip

    return {kind: of(numbers) for kind, numbers in sorted(values.items()) if numbers}


def deaths_of(summary: dict) -> int:
    return sum(len(plugin["crashes"]) for plugin in summary["plugins"])


def main() -> int:
    parser = side_by_side.parser(__doc__.split("\n\n", maxsplit=1)[0], rounds=1)
    parser.add_argument("--faults", type=int, default=100, help="how many (default 100)")
    parser.add_argument("--seed", type=int, default=None, help="of the faults and the run (default: a random one, printed)")
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"of {', '.join(KINDS)} (default all)")
    parser.add_argument("--per-second", type=float, default=2.0, help="faults, on average (default 2)")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--width", type=int, default=512, help="of the network: sets the step time (default 512)")
    parser.add_argument("--deadline", default="2s", help="of a call: how long a hang lasts (default 2s)")
    parser.add_argument("--matrix", action="store_true",
                        help="instead: each way to fail at each hook, in both languages, once")  # fmt: skip
    options = parser.parse_args()
    if options.matrix:
        return chaos_matrix.matrix(options.json)
    kinds = options.kinds.split(",")
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"no such kind: {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(2**31)
    print(f"seed {options.seed}", file=sys.stderr)
    report = chaos(options, kinds, random.Random(options.seed))
    show(report, options.json)
    whole = report["weights_equal"] and not report["rank_deaths"] and not report["batches_lost"] and not report["batches_duplicated"]
    return 0 if whole else 1


def chaos(options, kinds: List[str], rng: random.Random) -> dict:
    with side_by_side.working_directory() as directory:
        probe = Run(run_file(options, PROBE_STEPS, {}, 0), directory, "probe", options.ranks).finish()
        seconds = options.faults / options.per_second
        steps = max(PROBE_STEPS, int(1.2 * seconds / (probe["seconds"] / probe["steps"])))
        drawn = [rng.choice(kinds) for _ in range(options.faults)]
        plan = sorted((rng.uniform(0, seconds), kind) for kind in drawn if kind in OUTSIDE)
        strikes: Dict[str, List[int]] = {}
        for kind in (kind for kind in drawn if kind in INSIDE):
            strikes.setdefault(f"{kind}-{rng.choice(list(SABOTEURS))}", []).append(rng.randrange(1, int(steps / 1.2)))
        whole = Run(run_file(options, steps, strikes, 0), directory, "undisturbed", options.ranks).finish()
        run = Run(run_file(options, steps, strikes, 1), directory, "disturbed", options.ranks)
        sent = disturb(run, plan, rng)
        summary = run.finish()
    detect, recover = measure(run.events, sent)
    return {
        "bench": "chaos",
        "seed": options.seed,
        "ranks": options.ranks,
        "steps": steps,
        "faults": deaths_of(summary),
        "asked_for": options.faults,
        "by_kind": {kind: drawn.count(kind) for kind in kinds},
        "rank_deaths": sum(rank["restarts"] for rank in summary["ranks"])
        + sum(event["event"] == "crash" and "plugin" not in event for event in run.events),
        "batches_lost": summary["batches"]["lost"],
        "batches_duplicated": summary["batches"]["duplicated"],
        "dead_lettered": summary["batches"]["dead_lettered"],
        "weights_equal": summary["params_sha256"] == whole["params_sha256"],
        "detect_ms": spread(detect),
        "recover_ms": spread(recover),
        "rank_sizes": [run.sizes[0], run.sizes[len(run.sizes) // 2], run.sizes[-1]] if run.sizes else [],
        "throughput_ratio": whole["seconds"] / summary["seconds"],
    }


def show(report: dict, as_json: bool) -> None:
    if as_json:
        print(json.dumps(report))
        return
    for key, value in report.items():
        if key not in ("detect_ms", "recover_ms"):
            print(f"{key:20} {value}")
    for name in ("detect_ms", "recover_ms"):
        for kind, numbers in report[name].items():
            print(f"{name:11} {kind:28} p50 {numbers['p50']:8.1f}  p99 {numbers['p99']:8.1f}  max {numbers['max']:8.1f}  n {numbers['n']}")


if __name__ == "__main__":
    sys.exit(main())
