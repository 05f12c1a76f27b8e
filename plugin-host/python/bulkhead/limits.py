"""What bulkhead-shim does to a process before it becomes a host, done to this one: for a host that a zygote forked.

Linux only.  Used once, on the one thread of a newborn process.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import time
from typing import List, Sequence

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_PATIENCE = 5.0  # seconds for the process between to end
_FIELDS_BEFORE = 47  # of /proc/self/stat, in front of arg_start


def tie_to_parent(parent: int) -> None:
    """This process ends with its parent, which is `parent` once the process between has ended."""
    deadline = time.monotonic() + _PATIENCE
    while os.getppid() != parent:
        if time.monotonic() > deadline:
            os._exit(127)
        time.sleep(0.0002)
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(127)


def apply(oom_score: int, files: int, cores: int, memory: int) -> None:
    """In the shim's order; 0 leaves a limit as it is."""
    if oom_score != 0 and not _write_score(oom_score):
        _write_score(0)
    _limit(resource.RLIMIT_NOFILE, files)
    if cores > 0:
        _limit_cores(cores)
    _limit(resource.RLIMIT_AS, memory)


def _write_score(score: int) -> bool:
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(str(score))
    except OSError:
        return False
    return True


def _limit(kind: int, value: int) -> None:
    if value <= 0:
        return
    try:
        resource.setrlimit(kind, (value, value))
    except (OSError, ValueError) as error:
        print(f"bulkhead.zygote: cannot set a limit of {value}: {error}", file=sys.stderr)


def _limit_cores(count: int) -> None:
    """Beginning at one that depends on the pid, so that limited plugins do not crowd on the first."""
    allowed = sorted(os.sched_getaffinity(0))
    if count < len(allowed):
        first = os.getpid() % len(allowed)
        os.sched_setaffinity(0, {allowed[(first + place) % len(allowed)] for place in range(count)})


def command_line() -> List[str]:
    """Of this process, as ps shows it."""
    with open("/proc/self/cmdline", "rb") as file:
        return [os.fsdecode(word) for word in file.read().split(b"\0")[:-1]]


def show_as(arguments: Sequence[str], environment: Sequence[str]) -> None:
    """What /proc shows as this process's command line and environment; what has no room is left out.

    The caller has given the C library an environment of its own (os.environ.clear() and update() do): nobody may
    still read where the old one lies.
    """
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()  # from the third on
    first, last, env_first, env_last = (int(field) for field in fields[_FIELDS_BEFORE - 2 : _FIELDS_BEFORE + 2])
    for start, size, words in ((first, last - first, arguments), (env_first, env_last - env_first, environment)):
        text = b"".join(os.fsencode(word) + b"\0" for word in words)
        if len(text) > size:
            text = text[: text.rfind(b"\0", 0, size) + 1]
        ctypes.memmove(start, text.ljust(size, b"\0"), size)
