"""What transforms of every training batch cost a step, end to end: one, five and ten of them in a chain, each in a process
of its own, in C++ and in Python, beside a run without any.  Each writes every feature once, in place.

One rank with one compute thread, the other cores free.  A run is short and there are many, in turns: whatever else the
machine does falls on all cases alike, and what is compared is a case with the run without plugins of its own round.
"none, again" is that run a second time: its ratio is 1 but for the noise of this machine, and no other ratio is known
better than its quartiles are apart.
"""

from __future__ import annotations

import statistics
from pathlib import Path

import side_by_side

PLUGINS = {
    "C++": side_by_side.ROOT / "build/release/tests/bench/scale.so",
    "Python": side_by_side.ROOT / "tests/bench/plugins/scale.py",
}
COUNTS = [1, 5, 10]
NONE, AGAIN = "none", "none, again"
RUN = """
name: bench
model: {{type: mlp, layers: 3, width: {width}}}
data: {{type: csv, path: {root}/tests/data/csv/digits.csv, target: digit, batch_size: {batch_size}}}
optimizer: {{type: adamw, lr: 1.0e-3}}
train: {{max_steps: {steps}, device: cpu, seed: 1, log_every: 0, validate_every: {steps}}}
plugins: [{plugins}]
"""


def cases() -> dict:
    """Name → (language, how many)."""
    chains = {f"{count} {language}": (language, count) for count in COUNTS for language in PLUGINS}
    return {NONE: (None, 0), **chains, AGAIN: (None, 0)}


def run_file(language: str, count: int, options) -> str:
    entries = ", ".join(
        f"{{use: '{PLUGINS[language]}', name: scale_{i}, prefetch: {options.prefetch}}}" for i in range(count)
    )
    return RUN.format(root=side_by_side.ROOT, plugins=entries, **vars(options))


def main() -> None:
    parser = side_by_side.parser(__doc__.split("\n\n", maxsplit=1)[0].replace("\n", " "), rounds=15)
    parser.add_argument("--width", type=int, default=768, help="of the network: sets the step time (default 768)")
    parser.add_argument("--batch-size", type=int, default=64, help="samples of 256 bytes (default 64)")
    parser.add_argument("--prefetch", type=int, default=2, help="steps that the transforms run ahead (default 2)")
    parser.add_argument("--steps", type=int, default=200, help="of each run (default 200)")
    parser.add_argument("--cases", help="which, with semicolons between them, e.g. '1 C++;10 Python' (default all)")
    options = parser.parse_args()
    every = cases()
    chosen = [case for case in every if options.cases is None or case in options.cases.split(";")]
    chosen = list(dict.fromkeys([NONE, *chosen, AGAIN]))

    def measure(case: str, directory: Path) -> dict:
        text = run_file(*every[case], options)
        return side_by_side.run(text, "bench", directory, 1, {"OMP_NUM_THREADS": "1"})

    results = side_by_side.in_turns(chosen, options.rounds, measure)
    parameters = {key: getattr(options, key) for key in ("width", "batch_size", "prefetch", "steps")}
    alone = [summary["seconds"] / summary["steps"] for summary in results[NONE]]
    lines = []

    def add(case: str, metric: str, unit: str, values: list) -> None:
        lines.append(side_by_side.line("transforms", case, metric, unit, values, **parameters))

    for case, summaries in results.items():
        steps = [summary["seconds"] / summary["steps"] for summary in summaries]
        ratios = [step / bare for step, bare in zip(steps, alone)]
        add(case, "step", "ms", [1e3 * step for step in steps])
        if case != NONE:
            add(case, "ratio", "", ratios)
            quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
            add(case, "ratio q1", "", [quartiles[0]])
            add(case, "ratio q3", "", [quartiles[2]])
            add(case, "waited", "", [summary["plugin_overhead"] for summary in summaries])
    side_by_side.show(
        lines,
        options.json,
        "ratio: step time over that of none in the same round; waited: share of the step that the rank waited for plugins",
    )


if __name__ == "__main__":
    main()
