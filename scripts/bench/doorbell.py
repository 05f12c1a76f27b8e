"""What a small message to another process and its answer cost, side by side: the ring channel (as it is, spinning
50 us before it sleeps, with a whole Call and Reply instead of 64 bytes, and with a Python process at the other end),
the ZeroMQ channel, and cppzmq used directly with a ROUTER, a DEALER and two frames.

Free placement lets the kernel put the two processes where it likes; same_cpu pins both to CPU 0.  The cases take turns,
round after round.  Run it while nothing else runs: a wake-up is a matter of who else wants the CPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import side_by_side

BENCH = side_by_side.ROOT / "build/release/tests/bench/bench_doorbell"
CASES = ["ring", "ring-spin", "ring-call", "ring-python", "zeromq-channel", "zmq-inline"]
PLACEMENTS = ["free", "same_cpu"]


def measured(*arguments: object) -> dict:
    environment = {**os.environ, "PYTHONPATH": str(side_by_side.ROOT / "plugin-host/python")}
    command = [BENCH, *map(str, arguments)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=600)
    return json.loads(ended.stdout)


def main() -> int:
    parser = side_by_side.parser(__doc__.split("\n\n", maxsplit=1)[0], rounds=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement (default 1)")
    parser.add_argument("--parts", action="store_true", help="instead: ns of the codec and of a turn of the loop")
    arguments = parser.parse_args()
    if arguments.parts:
        for part in ("codec", "turn"):
            subprocess.run([BENCH, part], check=True)
        return 0

    def both(name: str, _directory: object) -> dict:
        case, placement = name.split(" ")
        latency = measured("latency", case, placement, arguments.seconds)
        return {**latency, **measured("throughput", case, placement, arguments.seconds)}

    names = [f"{case} {placement}" for placement in PLACEMENTS for case in CASES]
    results = side_by_side.in_turns(names, arguments.rounds, both)
    lines = []
    for name in names:
        case, placement = name.split(" ")
        for metric, key, unit, in_flight in (
            ("latency_us", "median", "us", 1),
            ("latency_p99_us", "p99", "us", 1),
            ("calls_per_s", "calls_per_s", "1/s", 8),
        ):
            values = [result[key] for result in results[name]]
            parameters = {"bytes": 64, "in_flight": in_flight, "placement": placement}
            entry = side_by_side.line("doorbell", case, metric, unit, values, **parameters)
            lines.append(entry if arguments.json else {**entry, "case": name})
    side_by_side.show(lines, arguments.json, "over the rounds: of their medians, p99s and rates")
    return 0


if __name__ == "__main__":
    sys.exit(main())
