"""What plugins cost a training step, side by side: none, one C++ notify plugin, one and ten Python notify plugins, a
slow Python observer; and how long each kind of hook takes from being sent to being answered.

One rank with one compute thread, the other cores free, steps of about 10 ms (--width changes them).  The saturated case
gives every core a rank, so hosts and ranks share them; it is reported, there is no goal for it.
"""

from __future__ import annotations

import os
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
    parser = side_by_side.parser(__doc__.split("\n")[0], rounds=5)
    parser.add_argument("--width", type=int, default=768, help="of the network: sets the step time (default 768)")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--saturated", action="store_true", help="a rank on every core as well")
    options = parser.parse_args()
    every = {**CASES, **KINDS}

    def measure(ranks: int):
        def one(case: str, directory: Path) -> dict:
            text = run_file(case, every[case], directory, options.width, options.steps)
            return side_by_side.run(text, "bench", directory, ranks, {"OMP_NUM_THREADS": "1"})

        return one

    lines = compare(list(CASES), options, 1, measure(1))
    if options.saturated:
        lines += compare(list(CASES)[:4], options, os.cpu_count() or 1, measure(os.cpu_count() or 1))
    results = side_by_side.in_turns(list(KINDS), options.rounds, measure(1))
    for case, summaries in results.items():
        for name in ("p50_us", "p99_us"):
            values = [plugin[name] for summary in summaries for plugin in summary["plugins"]]
            lines.append(side_by_side.line("hooks", case, f"call {name[:3]}", "us", values))
    side_by_side.show(lines, options.json, "ratio: step time over that without plugins, in the same round")


def compare(cases: list, options, ranks: int, measure) -> list:
    results = side_by_side.in_turns(cases, options.rounds, measure)
    parameters = {"ranks": ranks, "width": options.width, "steps": options.steps}
    label = "" if ranks == 1 else f" ({ranks} ranks)"
    bare = [summary["seconds"] / summary["steps"] for summary in results[cases[0]]]
    lines = []
    for case, summaries in results.items():
        steps = [summary["seconds"] / summary["steps"] for summary in summaries]
        ratios = [step / alone for step, alone in zip(steps, bare)]
        lines.append(
            side_by_side.line("hooks", case + label, "step", "ms", [1e3 * step for step in steps], **parameters)
        )
        lines.append(side_by_side.line("hooks", case + label, "ratio", "", ratios, **parameters))
    return lines


if __name__ == "__main__":
    main()
