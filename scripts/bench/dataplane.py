"""What a call of a plugin in another process costs, side by side: a C++ host, a Python host with numpy, one with torch,
and cppzmq used directly with the tensor as a frame.  A call carries a float32 tensor, to each element of which the
plugin adds one in place; 64 bytes travel in the envelope's frames, more lies in shared memory.

Free placement lets the kernel put the two processes where it likes; same_cpu pins both to CPU 0.  The cases take turns,
round after round.  Run it while nothing else runs: a wake-up is a matter of who else wants the CPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import side_by_side

BENCH = side_by_side.ROOT / "build/release/tests/bench/bench_dataplane"
CASES = ["bulkhead-cpp", "bulkhead-py", "bulkhead-py-torch", "zmq-inline"]
SIZES = [64, 64 << 10, 1 << 20, 64 << 20]
PLACEMENTS = ["free", "same_cpu"]


def measured(*arguments: object) -> dict:
    ended = subprocess.run(
        [BENCH, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=600
    )
    if ended.returncode != 0:
        raise side_by_side.RunFailed(f"{arguments}: exit status {ended.returncode}\n{ended.stderr[-2000:]}")
    return json.loads(ended.stdout.splitlines()[-1])


def has_torch() -> bool:
    python = os.environ.get("BULKHEAD_BENCH_PYTHON")
    return python is not None and subprocess.run([python, "-c", "import torch"], check=False).returncode == 0


def main() -> int:
    parser = side_by_side.parser(__doc__.split("\n\n", maxsplit=1)[0], rounds=3)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each measurement (default 0.5)")
    parser.add_argument("--peers", action="store_true", help="say what is measured here, and why not the others")
    arguments = parser.parse_args()
    cases = [case for case in CASES if case != "bulkhead-py-torch" or has_torch()]
    if arguments.peers:
        print(f"measured: {', '.join(cases)}")
        if "bulkhead-py-torch" not in cases:
            print("bulkhead-py-torch: BULKHEAD_BENCH_PYTHON names no Python with torch, pyzmq, msgpack and numpy")
        return 0

    def both(name: str, _directory: object) -> dict:
        case, size, placement = name.split(" ")
        found = measured("latency", case, size, placement, arguments.seconds)
        if int(size) <= 1 << 20:
            found.update(measured("throughput", case, size, placement, arguments.seconds))
        return found

    names = [f"{case} {size} {placement}" for placement in PLACEMENTS for size in SIZES for case in cases]
    results = side_by_side.in_turns(names, arguments.rounds, both)
    lines = []
    for name in names:
        case, size, placement = name.split(" ")
        for metric, key, unit, in_flight in (
            ("latency_us", "median", "us", 1),
            ("latency_p99_us", "p99", "us", 1),
            ("calls_per_s", "calls_per_s", "1/s", 8),
        ):
            values = [result[key] for result in results[name] if key in result]
            if values:
                parameters = {"bytes": int(size), "in_flight": in_flight, "placement": placement}
                entry = side_by_side.line("dataplane", case, metric, unit, values, **parameters)
                lines.append(entry if arguments.json else {**entry, "case": name})
    side_by_side.show(lines, arguments.json, "over the rounds: of their medians, p99s and rates")
    return 0


if __name__ == "__main__":
    sys.exit(main())
