"""What plugins cost a training step, side by side: none, one C++ notify plugin, one and ten Python notify plugins, a
slow Python observer; and how long each kind of hook takes from being sent to being answered.

One rank with one compute thread, the other cores free, steps of about 10 ms (--width changes them).  In each run blocks
of steps with and without the plugins' step hooks take turns (side_by_side.with_and_without).  "no plugins" shows what the method itself
finds where there is nothing.  The saturated case gives every core a rank, so hosts and ranks share them; it is reported,
there is no goal for it.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import side_by_side

NOTIFY_PY = '''
from bulkhead import Plugin

class Watch(Plugin):
    """Looks at every step, as a callback does."""
    stateless = True

    def on_step_start(self, ctx): self.step = ctx.global_step
    def on_step_end(self, ctx): self.loss = ctx.metrics["loss"]
    def should_stop(self, ctx): return False

class Slow(Plugin):
    """An observer that takes 100 ms for each step."""
    steers = False

    def on_step_end(self, ctx):
        import time
        time.sleep(0.1)

class Every(Plugin):
    """One hook of each kind."""
    def __init__(self): self.seen = 0
    def on_step_end(self, ctx): self.seen += 1
    def on_validate_start(self, ctx): pass
    def on_save_start(self, ctx): pass
    def transform_train_batch(self, batch, ctx): batch.mutable("features")[:] += 0

class Count(Plugin):
    """State, and nothing else."""
    def __init__(self): self.count = 0
    def on_step_end(self, ctx): self.count += 1
'''

RUN = """
name: {name}
model: {{type: mlp, layers: 3, width: {width}}}
data: {{type: csv, path: {root}/tests/data/csv/digits.csv, target: digit, batch_size: 64}}
optimizer: {{type: adamw, lr: 1.0e-3}}
train: {{max_steps: {steps}, device: cpu, seed: 1, log_every: 0, validate_every: {steps}}}
plugins: {plugins}
"""

WATCH = "{{use: '{file}:Watch', name: watch_{i}}}"
CASES = {
    "no plugins": [],
    "one C++ notify plugin": ["{{use: step_watch.so}}"],
    "one Python notify plugin": [WATCH],
    "ten Python notify plugins": [WATCH] * 10,
    "slow observer (100 ms a step)": ["{{use: '{file}:Slow'}}"],
}
KINDS = {
    "notify, step (C++)": ["{{use: step_watch.so}}"],
    "notify, step (Python)": [WATCH],
    "notify + transform + state (Python)": ["{{use: '{file}:Every'}}"],
    "stateful notify (Python)": ["{{use: '{file}:Count'}}"],
}


def run_file(case: str, plugins: list, directory: Path, width: int, steps: int) -> str:
    file = directory / "watch.py"
    file.write_text(NOTIFY_PY, encoding="utf-8")
    entries = ", ".join(plugin.format(file=file, i=i) for i, plugin in enumerate(plugins))
    return RUN.format(
        name="bench", root=side_by_side.ROOT, plugins=f"[{entries}]", width=width, steps=steps, case=case
    )


def main() -> None:
    parser = side_by_side.parser(__doc__.split("\n")[0], rounds=3)
    parser.add_argument("--width", type=int, default=768, help="of the network: sets the step time (default 768)")
    parser.add_argument("--steps", type=int, default=1000)
    side_by_side.add_block(parser)
    parser.add_argument("--saturated", action="store_true", help="a rank on every core as well")
    options = parser.parse_args()
    every = {**CASES, **KINDS}

    def measure(ranks: int):
        def one(case: str, directory: Path) -> dict:
            text = run_file(case, every[case], directory, options.width, options.steps)
            environment = {"OMP_NUM_THREADS": "1", **side_by_side.taking_turns(options.block)}
            return side_by_side.run(text, "bench", directory, ranks, environment)

        return one

    def compared(cases: list, ranks: int) -> list:
        results = side_by_side.in_turns(cases, options.rounds, measure(ranks))
        label = "" if ranks == 1 else f" ({ranks} ranks)"
        parameters = {"ranks": ranks, "width": options.width, "steps": options.steps}
        named = {case + label: summaries for case, summaries in results.items()}
        return side_by_side.with_and_without("hooks", named, **parameters)

    lines = compared(list(CASES), 1)
    if options.saturated:
        lines += compared(list(CASES)[:4], os.cpu_count() or 1)
    queueing = side_by_side.in_turns(["queue an event"], options.rounds, lambda *_: queued())["queue an event"]
    for name, case in (("with_next_us", "with the next"), ("now_us", "and wake the loop")):
        values = [measured[name] for measured in queueing]
        lines.append(side_by_side.line("hooks", f"queue an event, {case}", "rank's cost", "us", values))
    results = side_by_side.in_turns(list(KINDS), options.rounds, measure(1))
    for case, summaries in results.items():
        for name in ("p50_us", "p99_us"):
            values = [plugin[name] for summary in summaries for plugin in summary["plugins"]]
            lines.append(side_by_side.line("hooks", case, f"call {name[:3]}", "us", values))
    side_by_side.show(lines, options.json, "ratio: median step with the step hooks over that without, in the same run")


def queued() -> dict:
    """What the thread that trains pays for an event."""
    program = side_by_side.ROOT / "build/release/tests/bench/bench_events"
    ended = subprocess.run([program, "1"], capture_output=True, text=True, check=True, timeout=60)
    return json.loads(ended.stdout)


if __name__ == "__main__":
    main()
