"""Gives birth to the hosts of one plugin: ``python -m bulkhead.zygote``, started by the coordinator.

It imports what a host needs and the libraries that the plugin's file imports, never the plugin itself, and forks a
host whenever the coordinator asks for one: that takes milliseconds where a new interpreter with torch takes seconds,
and the libraries' memory is there once.  It has one thread, no ZeroMQ context and no GPU context, or forks nothing.

Standard input is a SEQPACKET socket to the coordinator.  A request is one packet, a JSON object:
{"env": ["KEY=value", …], "log": PATH, "parent": PID, "oom": N, "memory": BYTES, "files": N, "cpu": CORES}; 0 leaves a
limit as it is.  The answer is {"pid": N} or {"error": SENTENCE}, in order.  The host is the coordinator's own child:
the process between dies at once, and the coordinator is the subreaper.
"""

from __future__ import annotations

import ast
import gc
import importlib
import importlib.util
import json
import os
import random
import socket
import struct
import sys
import sysconfig
from typing import Iterator, List, Optional

import numpy as np

from bulkhead import host, limits  # all that a host imports

_LARGEST_REQUEST = 1 << 20
_NUMBER = struct.Struct("<q")
_SELDOM = ("bulkhead", "__future__")  # nothing to gain


# ----- What a plugin will import -----


def imports_of(source: str) -> List[str]:
    """Modules that are imported where the file is, or in an `__init__` or `setup`, in order, each once."""
    found: List[str] = []
    for statement in _first_statements(ast.parse(source)):
        if isinstance(statement, ast.Import):
            found.extend(alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom) and statement.level == 0 and statement.module:
            found.append(statement.module)
    return list(dict.fromkeys(name for name in found if name.split(".")[0] not in _SELDOM))


def _first_statements(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        is_function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        if is_function and getattr(child, "name", "") not in ("__init__", "setup"):
            continue
        yield child
        yield from _first_statements(child)


def is_library(name: str) -> bool:
    """Installed for this interpreter; what lies beside a plugin is the plugin's own."""
    try:
        spec = importlib.util.find_spec(name.split(".")[0])
    except (ImportError, ValueError):
        return False
    if spec is None or spec.origin is None:
        return False
    if spec.origin in ("built-in", "frozen"):
        return True
    places = {os.path.realpath(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    return any(os.path.realpath(spec.origin).startswith(place + os.sep) for place in places)


def preload(path: str) -> None:
    """Imports the libraries of the plugin's file.  What fails will fail, and be told, in the host."""
    try:
        with open(os.path.join(path, "__init__.py") if os.path.isdir(path) else path, encoding="utf-8") as file:
            names = imports_of(file.read())
    except (OSError, SyntaxError, ValueError):
        return
    for name in names:
        if is_library(name):
            try:
                importlib.import_module(name)
            except Exception:
                continue


def why_not() -> str:
    """Empty while this process may fork."""
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        return f"{threads - 1} threads run since the plugin's libraries were imported"
    torch = sys.modules.get("torch")
    if torch is not None and getattr(torch, "cuda", None) is not None and torch.cuda.is_initialized():
        return "CUDA is initialized since the plugin's libraries were imported"
    return ""


# ----- Births -----


def serve(connection: socket.socket) -> Optional[dict]:
    """Forks for each request.  In a newborn it returns the request, here None, when the coordinator has gone."""
    while True:
        packet = connection.recv(_LARGEST_REQUEST)
        if not packet:
            return None
        request = json.loads(packet)
        error = why_not()
        pid = 0 if error else _bear()
        if pid is None:
            connection.close()
            return request
        if pid == 0 and not error:
            error = "there is no memory or no process left to fork"
        connection.send(json.dumps({"error": error} if error else {"pid": pid}).encode())


def _bear() -> Optional[int]:
    """The pid of a child whose parent has died, None in that child itself; 0 where it cannot be made."""
    read, write = os.pipe()
    try:
        between = os.fork()
    except OSError:
        os.close(read)
        os.close(write)
        return 0
    if between == 0:
        os.close(read)
        try:
            child = os.fork()
        except OSError:
            os._exit(1)
        if child == 0:
            os.close(write)
            return None
        os.setpgid(child, child)  # before anybody knows of it: a kill of its group never misses
        os.write(write, _NUMBER.pack(child))
        os._exit(0)
    os.close(write)
    answer = os.read(read, _NUMBER.size)
    os.close(read)
    os.waitpid(between, 0)
    return _NUMBER.unpack(answer)[0] if answer else 0


def become_host(request: dict) -> None:
    """Makes this newborn what bulkhead-shim and a new interpreter would have made."""
    limits.tie_to_parent(request["parent"])
    nowhere = os.open(os.devnull, os.O_RDONLY)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for source, target in ((nowhere, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.closerange(3, max(nowhere, log) + 1)
    environment = dict(entry.split("=", 1) for entry in request["env"])
    os.environ.clear()
    os.environ.update(environment)
    _extend_path(environment.get("PYTHONPATH", ""))
    limits.show_as(["bulkhead.host" if word == "bulkhead.zygote" else word for word in limits.command_line()],
                   request["env"])  # fmt: skip
    # Streams that every newborn would share with its siblings.
    random.seed()
    np.random.seed()
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.seed()
    limits.apply(request["oom"], request["files"], request["cpu"], request["memory"])


def _extend_path(paths: str) -> None:
    """What of PYTHONPATH this interpreter was not started with, behind the rest of it."""
    at = 1
    for path in filter(None, paths.split(os.pathsep)):
        if path in sys.path:
            at = sys.path.index(path) + 1
        else:
            sys.path.insert(at, path)
            at += 1


def main() -> int:
    connection = socket.socket(fileno=os.dup(0))
    preload(os.environ.get("BULKHEAD_ZYGOTE_FILE", ""))
    gc.collect()
    gc.freeze()  # a collection in a newborn would copy every page
    request = serve(connection)
    if request is None:
        return 0
    become_host(request)
    return host.main()


if __name__ == "__main__":
    sys.exit(main())
