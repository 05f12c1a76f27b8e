"""What transforms of every training batch cost a step, end to end: one, five and ten of them in a chain, each in a process
of its own, in C++ and in Python.  Each writes every feature once, in place.

One rank with one compute thread, the other cores free, steps of about 10 ms (--width changes them).  In each run blocks
of steps with and without the transforms take turns (side_by_side.with_and_without).  "none" shows what the method itself
finds where there is nothing.
"""

from __future__ import annotations

from pathlib import Path

import side_by_side

PLUGINS = {
    "C++": side_by_side.ROOT / "build/release/tests/bench/scale.so",
    "Python": side_by_side.ROOT / "tests/bench/plugins/scale.py",
}
COUNTS = [1, 5, 10]
NONE = "none"
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
    return {NONE: (None, 0), **chains}


def run_file(language: str, count: int, options) -> str:
    entries = ", ".join(
        f"{{use: '{PLUGINS[language]}', name: scale_{i}, prefetch: {options.prefetch}}}" for i in range(count)
    )
    return RUN.format(root=side_by_side.ROOT, plugins=entries, **vars(options))


def main() -> None:
    parser = side_by_side.parser(__doc__.split("\n\n", maxsplit=1)[0].replace("\n", " "), rounds=5)
    parser.add_argument("--width", type=int, default=768, help="of the network: sets the step time (default 768)")
    parser.add_argument("--batch-size", type=int, default=64, help="samples of 256 bytes (default 64)")
    parser.add_argument("--prefetch", type=int, default=2, help="steps that the transforms run ahead (default 2)")
    parser.add_argument("--steps", type=int, default=700, help="of each run (default 700)")
    side_by_side.add_block(parser)
    parser.add_argument("--cases", help="which, with semicolons between them, e.g. '1 C++;10 Python' (default all)")
    options = parser.parse_args()
    every = cases()
    chosen = [case for case in every if options.cases is None or case in options.cases.split(";")]

    def measure(case: str, directory: Path) -> dict:
        text = run_file(*every[case], options)
        environment = {"OMP_NUM_THREADS": "1", **side_by_side.taking_turns(options.block)}
        return side_by_side.run(text, "bench", directory, 1, environment)

    results = side_by_side.in_turns(chosen, options.rounds, measure)
    parameters = {key: getattr(options, key) for key in ("width", "batch_size", "prefetch", "steps")}
    lines = side_by_side.with_and_without("transforms", results, **parameters)
    for case, summaries in results.items():
        waited = [summary["plugin_overhead"] for summary in summaries]
        lines.append(side_by_side.line("transforms", case, "waited", "", waited, **parameters))
    note = "ratio: median step with the transforms over that without, in the same run; waited: share of the time that the rank waited for plugins"
    side_by_side.show(lines, options.json, note)


if __name__ == "__main__":
    main()
