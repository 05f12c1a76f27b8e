"""The host's process and the sockets it talks to: started, heard with a deadline, ended with all its children.

What the host prints is read all the time, so that a plugin that prints for ever cannot fill a disk or stand still: the
last part is kept.  One thread.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, List, Mapping, Optional, Sequence, Tuple

import zmq

from bulkhead import messages, wire

_KEPT = 64 << 10  # bytes of what the host printed
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
COORDINATOR, HOST, WORKER = 2, 1, 3  # generations; the host is a first incarnation: it checks its class

_libc = ctypes.CDLL(None)


class Died(Exception):
    """The host's process has ended; the message says how."""


class Hung(Exception):
    """Nothing came within the deadline."""


class Garbage(Exception):
    """What came breaks the protocol."""


class Peer:
    """A ROUTER for one client, which is whoever speaks last."""

    def __init__(self, context: zmq.Context, endpoint: str, generation: int) -> None:
        self.socket = context.socket(zmq.ROUTER)
        for option, value in (
            (zmq.LINGER, 0), (zmq.ROUTER_MANDATORY, 1), (zmq.MAXMSGSIZE, wire.MAX_FRAME), (zmq.SNDHWM, 0),
            (zmq.RCVHWM, 0),
        ):  # fmt: skip
            self.socket.setsockopt(option, value)
        self.socket.bind(endpoint)
        self.endpoint = endpoint
        self.generation = generation
        self._client = b""

    def send(self, envelope: dict, payloads: Sequence[Any] = ()) -> None:
        frames = messages.frames_of({**envelope, "generation": self.generation}, payloads)
        self.socket.send_multipart([self._client, *frames], copy=True)

    def receive(self) -> Tuple[dict, List[bytes]]:
        """The message that is there: its envelope and the bytes after it."""
        self._client, *frames = self.socket.recv_multipart()
        try:
            return wire.unpack(frames), frames
        except wire.Malformed as error:
            raise Garbage(str(error)) from None


class HostProcess:
    """Context manager: a host that has been started, and is gone afterwards with every process it made."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], cwd: str) -> None:
        # A socket's path must be short, which that of TMPDIR need not be.
        self._folder = tempfile.mkdtemp(prefix="bulkhead-check-", dir=os.environ.get("XDG_RUNTIME_DIR") or "/tmp")
        self._zmq = zmq.Context()
        self._poller = zmq.Poller()
        self.control = Peer(self._zmq, f"ipc://{self._folder}/control", COORDINATOR)
        self.data = Peer(self._zmq, f"ipc://{self._folder}/data", WORKER)
        self.secret = os.urandom(16).hex()
        self.printed = bytearray()
        self.printed_bytes = 0
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # what the plugin starts and leaves is ours to end
        parent = os.getpid()
        try:
            self._child = subprocess.Popen(
                command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                start_new_session=True, preexec_fn=lambda: _die_with(parent),
                env={
                    **environment, "BULKHEAD_ENDPOINT": self.control.endpoint, "BULKHEAD_SECRET": self.secret,
                    "BULKHEAD_GENERATION": str(HOST), "BULKHEAD_PLUGIN": "0", "BULKHEAD_RANK": "0",
                },
            )  # fmt: skip
        except OSError:
            self._close_sockets()
            raise
        self._output = self._child.stdout.fileno()
        os.set_blocking(self._output, False)
        for source in (self.control.socket, self.data.socket, self._output):
            self._poller.register(source, zmq.POLLIN)

    def __enter__(self) -> HostProcess:
        return self

    def __exit__(self, *_: Any) -> None:
        self.end()

    @property
    def pid(self) -> int:
        return self._child.pid

    def next(self, deadline: float) -> Tuple[Peer, dict, List[bytes]]:
        """The next message from the host that is no heartbeat; Died, Hung or Garbage instead."""
        while True:
            ready = dict(self._poller.poll(min(0.05, max(0.0, deadline - time.monotonic())) * 1000))
            if self._output in ready:
                self._drain()
            for peer in (self.data, self.control):
                if peer.socket in ready:
                    envelope, frames = peer.receive()
                    if envelope["type"] != "heartbeat":
                        return peer, envelope, frames
            if not ready and self._child.poll() is not None:
                raise Died(self._ending())
            if time.monotonic() >= deadline:
                raise Hung

    def stop(self, patience: float) -> None:
        """Tells the host to stop and waits; Hung when it does not."""
        self.control.send({"type": "stop", "generation": 0, "reason": "the check is over"})
        deadline = time.monotonic() + patience
        try:
            while True:
                self.next(deadline)
        except Died:
            if self._child.returncode != 0:
                raise

    def end(self) -> None:
        """Kills what is left of the host and of what it started; again is fine."""
        if self._child.poll() is None:
            os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()
        else:
            _kill_group(self._child.pid)
        self._drain()
        _reap_orphans()
        self._child.stdout.close()
        self._close_sockets()

    def _close_sockets(self) -> None:
        self.control.socket.close()
        self.data.socket.close()
        self._zmq.term()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _drain(self) -> None:
        for _ in range(64):  # then the sockets have their turn
            try:
                piece = os.read(self._output, 1 << 16)
            except BlockingIOError:
                return
            if not piece:
                if self._output in self._poller:
                    self._poller.unregister(self._output)
                return
            self.printed_bytes += len(piece)
            self.printed += piece
            del self.printed[:-_KEPT]

    def _ending(self) -> str:
        self._drain()
        status = self._child.returncode
        if status >= 0:
            return f"its process ended with status {status}"
        try:
            return f"its process died of {signal.Signals(-status).name}"
        except ValueError:
            return f"its process died of signal {-status}"


def _die_with(parent: int) -> None:
    """In the child: it ends when this tool does, however that happens."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _reap_orphans() -> None:
    """Ends the processes that a plugin started and that have become this one's children."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        children = _children()
        if not children:
            return
        for pid in children:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass


def _children() -> List[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def python_command() -> Tuple[List[str], Optional[str]]:
    """(the Python host's command line, what PYTHONPATH needs besides)."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return [sys.executable, "-m", "bulkhead.host"], root
