"""A training step on one GPU, side by side: bulkhead through its real worker, and PyTorch eager, torch.compile and
torch.compile with CUDA graphs (gpu_peer.py), on GPT-2 124M (W1) and on a small GPT bound by launches (W2), in bf16 with
AdamW and clipping.  The cases take turns.

MFU counts 6 N + 12 layers width context operations a token (Kaplan et al. 2020; attention as in PaLM's appendix B)
over 989 TFLOP/s, what NVIDIA says of a dense H100 or H200.

--plugins adds bulkhead with so many plugins: by turns a Python one that hears of every step, a C++ one that has every
batch in its hands, and csv_log for the whole job.

--curves instead trains bulkhead and PyTorch eager from the same weights on the same batches, and compares the losses.
Needs a Python with torch (BULKHEAD_BENCH_PYTHON) and a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List

import gpu_data
import side_by_side

PEAK_FLOPS = 989e12
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Work:
    layers: int
    width: int
    heads: int
    context: int
    batch: int
    vocabulary: int
    window: int  # steps of one measured window
    windows: int

    @property
    def parameters(self) -> int:
        block = 12 * self.width * self.width + 13 * self.width
        return (self.vocabulary + self.context + 2) * self.width + self.layers * block

    def mfu(self, tokens_per_second: float) -> float:
        operations = 6 * self.parameters + 12 * self.layers * self.width * self.context
        return tokens_per_second * operations / PEAK_FLOPS


WORKS = {
    "W1": Work(12, 768, 12, 1024, 32, 50304, window=20, windows=5),
    "W2": Work(6, 384, 6, 256, 16, 50304, window=200, windows=5),
}
PEERS = ["eager", "compile", "reduce-overhead"]
WARM_UP = 2  # windows that are not counted

RUN = """
name: {name}
model: {{type: gpt, layers: {work.layers}, heads: {work.heads}, width: {work.width}, context: {work.context}}}
data: {{type: text, path: {data}, batch_size: {work.batch}, validation_fraction: 0.1}}
optimizer: {{type: adamw, lr: {lr}, weight_decay: 0.1, grad_clip: 1.0}}
train: {{max_steps: {steps}, device: cuda, precision: bf16, deterministic: {deterministic}, seed: 1,
         validate_every: 1000000000, validate_batches: 1, log_every: {log_every}}}
plugins: {plugins}
"""


def run_bulkhead(work: Work, directory: Path, data: Path, **settings) -> Path:
    """One run to its end; its directory."""
    values = {"lr": 3e-4, "deterministic": "false", "plugins": "[]", "name": "bench", **settings}
    file = directory / "bench.yaml"
    file.write_text(RUN.format(work=work, data=data, **values), encoding="utf-8")
    runs = directory / "runs"
    command = [side_by_side.ROOT / "scripts/bulkhead-run", "--run-dir", runs, "--resume", "none", file]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    made = sorted(runs.glob(f"{values['name']}-*"), key=lambda path: path.stat().st_mtime)
    if ended.returncode != 0 or not made:
        said = ended.stdout[-2000:] + ended.stderr[-2000:]
        raise side_by_side.RunFailed(f"bulkhead: exit status {ended.returncode}\n{said}")
    return made[-1]


def lines_of(run: Path) -> List[dict]:
    text = (run / "metrics.jsonl").read_text(encoding="utf-8")
    return [line for line in map(json.loads, text.splitlines()) if "loss" in line]


NOTIFY = '''
from bulkhead import Plugin

class Notify(Plugin):
    """Hears of every step."""
    stateless = True

    def on_step_start(self, ctx): pass
    def on_step_end(self, ctx): self.loss = ctx.metrics["loss"]
    def should_stop(self, ctx): return False
'''


def plugins_of(count: int, directory: Path) -> str:
    (directory / "notify.py").write_text(NOTIFY, encoding="utf-8")
    kinds = [f"use: '{directory}/notify.py:Notify'", "use: token_noise, with: {probability: 0}",
             "use: csv_log, scope: job, with: {path: metrics-%d.csv}"]
    entries = [kinds[i % len(kinds)].replace("%d", str(i)) for i in range(count)]
    return "[" + ", ".join(f"{{name: p{i}, {entry}}}" for i, entry in enumerate(entries)) + "]"


def measure_bulkhead(work: Work, directory: Path, data: Path, options, plugins: int) -> dict:
    steps = work.window * (work.windows + WARM_UP)
    run = run_bulkhead(work, directory, data, steps=steps, log_every=work.window,
                       deterministic="true" if options.deterministic else "false",
                       plugins=plugins_of(plugins, directory))
    marks = [line for line in lines_of(run) if line["step"] % work.window == 0]
    windows = [1e3 * (b["time"] - a["time"]) / (b["step"] - a["step"]) for a, b in zip(marks, marks[1:])]
    return {"ms": windows[WARM_UP - 1:], "loss": marks[-1]["loss"], "memory": marks[-1].get("device_memory_bytes")}


def peer(work: Work, mode: str, data: Path, *more: object) -> subprocess.CompletedProcess:
    shape = [work.layers, work.width, work.heads, work.context, work.batch, work.vocabulary]
    command = [sys.executable, HERE / "gpu_peer.py", mode, data, ",".join(map(str, shape)), work.window,
               work.windows, *more]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=600)


def measure_peer(work: Work, mode: str, data: Path) -> dict:
    ended = peer(work, mode, data)
    if ended.returncode != 0:
        raise side_by_side.RunFailed(f"{mode}: exit status {ended.returncode}\n{ended.stderr[-2000:]}")
    return json.loads(ended.stdout.splitlines()[-1])


def measure(options, directory: Path) -> List[dict]:
    lines = []
    for name in options.work:
        work = WORKS[name]
        data = gpu_data.make(directory / f"{name}.txt", work.vocabulary, work.batch * work.context)
        counts = {f"bulkhead, {count} plugins": count for count in options.plugins}
        cases = [*options.cases, *counts]
        results: Dict[str, List[dict]] = {case: [] for case in cases}
        for turn in range(options.rounds):
            for case in cases if turn % 2 == 0 else reversed(cases):
                print(f"{name}: round {turn + 1} of {options.rounds}: {case}", file=sys.stderr, flush=True)
                try:
                    one = (measure_peer(work, case, data) if case in PEERS
                           else measure_bulkhead(work, directory, data, options, counts.get(case, 0)))
                    results[case].append(one)
                except (side_by_side.RunFailed, subprocess.TimeoutExpired) as failure:
                    print(failure, file=sys.stderr, flush=True)
        for case, found in results.items():
            lines += lines_for(name, work, case, found)
    return lines


def lines_for(name: str, work: Work, case: str, found: List[dict]) -> List[dict]:
    if not found:
        return []
    label = f"{name} {case}"
    steps = [value for one in found for value in one["ms"]]
    rates = [work.batch * work.context / value * 1e3 for value in steps]
    lines = [side_by_side.line("gpu", label, "step", "ms", steps),
             side_by_side.line("gpu", label, "rate", "tok/s", rates),
             side_by_side.line("gpu", label, "mfu", "", [work.mfu(rate) for rate in rates])]
    memory = [one["memory"] / 2**30 for one in found if one["memory"]]
    if memory:
        lines.append(side_by_side.line("gpu", label, "peak memory", "GiB", memory))
    return lines


# ----- Loss curves -----

DUMP = '''
import numpy
from bulkhead import Plugin

class Dump(Plugin):
    """Keeps what every step is trained on."""
    stateless = True

    def __init__(self, folder: str): self.folder = folder
    def transform_train_batch(self, batch, ctx):
        for name in ("input_ids", "labels"):
            numpy.save(f"{self.folder}/{name}-{ctx.global_step}.npy", batch[name])
'''


def compare_curves(options, directory: Path) -> List[dict]:
    """The same weights (a step so small that it changes none) and batches in both: how far the losses are apart."""
    lines = []
    for name in options.work:
        work = WORKS[name]
        data = gpu_data.make(directory / f"{name}.txt", work.vocabulary, work.batch * work.context)
        folder = directory / f"batches-{name}"
        folder.mkdir()
        (directory / "dump.py").write_text(DUMP, encoding="utf-8")
        still = run_bulkhead(work, directory, data, name="init", steps=1, log_every=1, lr=1e-30)
        plugins = f"[{{use: '{directory}/dump.py:Dump', with: {{folder: '{folder}'}}}}]"
        run = run_bulkhead(work, directory, data, steps=options.steps, log_every=1, plugins=plugins)
        weights = sorted((still / "checkpoints").glob("step-*/model*.safetensors"))[-1]
        ours = [line["loss"] for line in lines_of(run)]
        for case in options.curves:
            ended = peer(work, case, data, weights, folder, options.steps)
            if ended.returncode != 0:
                raise side_by_side.RunFailed(f"{case}: {ended.stderr[-2000:]}")
            theirs = json.loads(ended.stdout.splitlines()[-1])["losses"]
            apart = [abs(a - b) for a, b in zip(ours, theirs)]
            print(f"{name}: bulkhead {ours[0]:.4f} … {ours[-1]:.4f}, {case} {theirs[0]:.4f} … {theirs[-1]:.4f}, "
                  f"worst {max(apart):.4f} at step {apart.index(max(apart)) + 1}", file=sys.stderr)
            lines.append(side_by_side.line("gpu", f"{name} loss against {case}", "distance", "nats", apart))
    return lines


def main() -> int:
    parser = side_by_side.parser(__doc__.split("\n\n", maxsplit=1)[0], rounds=1)
    parser.add_argument("--work", nargs="+", choices=sorted(WORKS), default=sorted(WORKS))
    parser.add_argument("--cases", nargs="+", choices=["bulkhead", *PEERS], default=["bulkhead", *PEERS])
    parser.add_argument("--plugins", nargs="*", type=int, default=[], metavar="COUNT",
                        help="bulkhead with so many plugins too, as further cases")
    parser.add_argument("--deterministic", action="store_true", help="of bulkhead: equal runs, equal bits")
    parser.add_argument("--curves", nargs="+", choices=PEERS, metavar="PEER",
                        help="instead: distance of the losses from these")
    parser.add_argument("--steps", type=int, default=60, help="of a loss curve (default 60)")
    options: argparse.Namespace = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bulkhead-bench-") as folder:
        lines = (compare_curves if options.curves else measure)(options, Path(folder))
    side_by_side.show(lines, options.json, "windows of steps after warm-up; N in 6 N is the number of parameters")
    return 0 if lines else 1


if __name__ == "__main__":
    os.environ.setdefault("NCCL_NVLS_ENABLE", "0")
    sys.exit(main())
