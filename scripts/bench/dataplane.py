"""What a call of a plugin in another process costs, side by side: a C++ host, a Python host with numpy, one with torch,
the first two through a socket, as between machines, and spinning for 50 us before they sleep, and the same done with what people use instead: cppzmq with the
tensor as a frame, gRPC, a DataLoader (one way: its worker gets an index and sends a tensor), a Ray actor, iceoryx.  A
call carries a float32 tensor, to each element of which the other process adds one; the first and the last that come
back are checked.

Free placement lets the kernel put the processes where it likes; same_cpu pins all of them to CPU 0.  The cases take
turns, round after round.  Run it while nothing else runs: a wake-up is a matter of who else wants the CPU.

`copies` is how often the tensor's bytes are moved during a call, in all processes together: counted by a library that
stands in for memcpy, memmove and the calls on sockets and pipes (tests/bench/count_copies.cpp), in a run of its own.  A
loop of a library's own is not seen, so these are at least; for a DataLoader, whose one copy is such a loop, they are
left out.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import side_by_side

BUILT = side_by_side.ROOT / "build/release/tests/bench"
PEERS = side_by_side.ROOT / "tests/bench/peers"
OURS = ["bulkhead-cpp", "bulkhead-py", "bulkhead-py-torch", "bulkhead-cpp-socket", "bulkhead-py-socket",
        "bulkhead-cpp-spin", "bulkhead-py-spin", "zmq-inline"]
PROGRAMS = {"grpc-cpp": BUILT / "bench_grpc", "iceoryx": BUILT / "bench_iceoryx"}
MODULES = {"dataloader": PEERS / "dataloader.py", "ray": PEERS / "ray_actor.py"}
CASES = [*OURS, "grpc-cpp", "dataloader", "ray", "iceoryx"]
SIZES = [64, 64 << 10, 1 << 20, 64 << 20]
PLACEMENTS = ["free", "same_cpu"]
WINDOWED = 1 << 20  # bytes: larger tensors are called one at a time
COUNTED = 64 << 10  # bytes: of smaller tensors copies say nothing
PATIENCE = 120  # seconds for one measurement
METRICS = (  # name, key in what a program prints, unit, calls in flight
    ("latency_us", "median", "us", 1),
    ("latency_p99_us", "p99", "us", 1),
    ("calls_per_s", "calls_per_s", "1/s", 8),
    ("copies", "copies", "", 1),
    ("copies_kernel", "copies_kernel", "", 1),
)


# ----- What is installed -----


def imports(module: str) -> bool:
    python = os.environ.get("BULKHEAD_BENCH_PYTHON")
    if python is None:
        return False
    # In a folder where nothing has the module's name.
    command = [python, "-c", f"import {module}"]
    return subprocess.run(command, check=False, capture_output=True, cwd=BUILT).returncode == 0


def why_not(case: str) -> str:
    """What there is to do before this case can be measured; empty when it can."""
    python = "set BULKHEAD_BENCH_PYTHON to a Python that can import"
    if case == "bulkhead-py-torch" and not imports("torch, zmq, msgpack, numpy"):
        return f"{python} torch, zmq, msgpack and numpy (pip install torch pyzmq msgpack numpy)"
    if case == "dataloader" and not imports("torch"):
        return f"{python} torch (pip install torch)"
    if case == "ray" and not imports("ray, numpy"):
        return f"{python} ray and numpy (pip install ray numpy)"
    if case == "grpc-cpp" and not PROGRAMS[case].exists():
        return "apt-get install libgrpc++-dev protobuf-compiler-grpc"
    if case == "iceoryx" and not PROGRAMS[case].exists():
        return "apt-get install iceoryx libiceoryx-posh-dev (2.0)"
    return ""


# ----- One measurement -----


def command(case: str) -> list:
    if case in MODULES:
        return [os.environ["BULKHEAD_BENCH_PYTHON"], MODULES[case]]
    return [PROGRAMS.get(case, BUILT / "bench_dataplane")]


def ended(process: subprocess.Popen) -> tuple:
    """Its output and errors; when it does not end in time, it and all that it has started are ended."""
    try:
        return process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.terminate()  # what it has started goes with it, in good order
    try:
        return process.communicate(timeout=5)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()


def measured(case: str, metrics: list, size: str, placement: str, seconds: float, environment: dict) -> dict:
    """What the program prints.  A peer that fails has no numbers in this round; bulkhead has no such excuse."""
    line = [*command(case), ",".join(metrics), case, size, placement, str(seconds)]
    process = subprocess.Popen(
        line,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **environment},
    )
    output, errors = ended(process)
    if process.returncode != 0:
        failure = f"{' '.join(map(str, line))}: exit status {process.returncode}\n{errors[-2000:]}"
        if case in OURS:
            raise side_by_side.RunFailed(failure)
        print(failure, file=sys.stderr)
        return {}
    found = {}
    for printed in output.splitlines():
        if printed.startswith("{"):
            found.update(json.loads(printed))
    return found


def counted(case: str, size: str, placement: str, seconds: float, directory: Path) -> dict:
    totals = directory / "copies"
    totals.write_bytes(bytes(16))
    counting = {"LD_PRELOAD": str(BUILT / "count_copies.so"), "BULKHEAD_BENCH_COPIES": str(totals)}
    return measured(case, ["copies"], size, placement, seconds, counting)


def main() -> int:
    parser = side_by_side.parser(__doc__.split("\n\n", maxsplit=1)[0], rounds=3)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each measurement (default 0.5)")
    parser.add_argument("--cases", default=",".join(CASES), help="which, with commas between them (default all)")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="of the tensor, in bytes")
    parser.add_argument("--placements", default=",".join(PLACEMENTS))
    parser.add_argument("--peers", action="store_true", help="say what is measured here, and why not the others")
    arguments = parser.parse_args()
    wanted = arguments.cases.split(",")
    if unknown := set(wanted) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    missing = {case: reason for case in wanted if (reason := why_not(case))}
    cases = [case for case in wanted if case not in missing]
    if arguments.peers:
        print(f"measured: {', '.join(cases)}")
        for case, reason in missing.items():
            print(f"{case}: {reason}")
        return 0

    def all_of(name: str, directory: Path) -> dict:
        case, size, placement = name.split(" ")
        metrics = ["latency", "throughput"] if int(size) <= WINDOWED else ["latency"]
        found = measured(case, metrics, size, placement, arguments.seconds, {})
        if placement == "free" and int(size) >= COUNTED and case != "dataloader":
            found.update(counted(case, size, placement, arguments.seconds, directory))
        return found

    sizes, placements = arguments.sizes.split(","), arguments.placements.split(",")
    names = [f"{case} {size} {placement}" for placement in placements for size in sizes for case in cases]
    results = side_by_side.in_turns(names, arguments.rounds, all_of)
    lines = []
    for name in names:
        case, size, placement = name.split(" ")
        for metric, key, unit, in_flight in METRICS:
            values = [result[key] for result in results[name] if key in result]
            if values:
                parameters = {"bytes": int(size), "in_flight": in_flight, "placement": placement}
                entry = side_by_side.line("dataplane", case, metric, unit, values, **parameters)
                lines.append(entry if arguments.json else {**entry, "case": name})
    side_by_side.show(lines, arguments.json, "over the rounds: of their medians, p99s, rates and counts")
    return 0


if __name__ == "__main__":
    sys.exit(main())
