"""What tests/bench/measuring.h is to the C++ programs, for peers in Python:

    PROGRAM METRIC[,METRIC...] CASE BYTES free|same_cpu SECONDS    one JSON line
"""

import json
import os
import struct
import sys
import time

WINDOW = 8  # calls in flight
COUNTED_CALLS = 20  # for the copies


class Request:
    """The command line; also goes where it says."""

    def __init__(self):
        metrics, self.name, size, self.placement, seconds = sys.argv[1:]
        self.metrics = metrics.split(",")
        self.bytes, self.seconds = int(size), float(seconds)
        if self.placement == "same_cpu":
            os.sched_setaffinity(0, {0})


def latency(once, seconds):
    micros = []
    start = time.perf_counter()
    while len(micros) < 5 or time.perf_counter() - start < seconds:
        before = time.perf_counter_ns()
        once()
        micros.append((time.perf_counter_ns() - before) / 1e3)
    micros.sort()
    count = len(micros)
    return {"min": micros[0], "median": micros[count // 2], "p99": micros[count * 99 // 100], "n": count}


def throughput(send, receive, seconds):
    """`receive` takes what `send` has given, the calls under way, and removes those that have ended."""
    under_way, done, start = [], 0, time.perf_counter()
    while True:
        more = time.perf_counter() - start < seconds
        while more and len(under_way) < WINDOW:
            under_way.append(send())
        if not under_way:
            return {"calls_per_s": done / (time.perf_counter() - start)}
        before = len(under_way)
        receive(under_way)
        done += before - len(under_way)


def copies(once, size):
    with open(os.environ["BULKHEAD_BENCH_COPIES"], "rb", buffering=0) as file:

        def counted():
            return struct.unpack("=QQ", os.pread(file.fileno(), 16, 0))

        before = counted()
        for _ in range(COUNTED_CALLS):
            once()
        in_memory, through_kernel = (
            (now - then) / (size * COUNTED_CALLS) for now, then in zip(counted(), before)
        )
    return {"copies": in_memory + through_kernel, "copies_kernel": through_kernel}


def measure(request, send, receive):
    """Measures all that was asked for, and prints it."""

    def once():
        under_way = [send()]
        while under_way:
            receive(under_way)

    start, calls = time.perf_counter(), 0
    while calls < 2000 and time.perf_counter() - start < request.seconds / 4:
        once()
        calls += 1
    found = {}
    for metric in request.metrics:
        if metric == "latency":
            found.update(latency(once, request.seconds))
        elif metric == "throughput":
            found.update(throughput(send, receive, request.seconds))
        elif metric == "copies":
            found.update(copies(once, request.bytes))
    print(json.dumps(found), flush=True)
