"""The Python plugin host: ``python -m bulkhead.host``, started by the coordinator, one process for one plugin.

One thread reads a message, works, answers; a hook that hangs is therefore seen as what it is.  A hook that asks the
rank for something waits on both connections, so that a stop, a new worker or the parent's death reach it there too.
The life of a host and the messages are protocol/README.md's.

Exit status: 0 told to stop (or coordinator or parent gone), 2 refused, 1 an error of its own; SystemExit in a hook
ends the process with the plugin's own status.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, Mapping, Optional, Sequence, Tuple, Union

import zmq

from bulkhead import context as context_module
from bulkhead import loader, messages
from bulkhead.call_mark import CallMark
from bulkhead.context import Facts
from bulkhead.device import Gpu, GpuLost, NoGpu, open_gpu
from bulkhead.link import Link, PeerGone, Refused, capabilities
from bulkhead.ring import RingSocket
from bulkhead.rng import GlobalSeeds, call_key
from bulkhead.runner import CallAborted, Runner
from bulkhead.wire import Malformed

HEARTBEAT_SECONDS = 1.0
_HOT_TURNS = 64  # messages of a busy worker between two looks at the coordinator
_MAX_SPIN_US = 50
_FLUSH_MS = 2000  # for the last message of a host that refuses its plugin

_current: Optional[Host] = None


def current() -> Optional[Host]:
    """The host of this process, or None.  For tests only: the saboteur writes garbage to its `data_socket`."""
    return _current


class Stopped(Exception):
    """The host shall end with `status`."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Host:
    """Owns both connections, the plugin and the loop."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Refused when the environment is not one that the coordinator makes."""
        try:
            self._generation = int(environment["BULKHEAD_GENERATION"])
            self._plugin_index = int(environment["BULKHEAD_PLUGIN"])
            self._rank = int(environment["BULKHEAD_RANK"])
            self._secret = environment["BULKHEAD_SECRET"]
            endpoint = environment["BULKHEAD_ENDPOINT"]
        except (KeyError, ValueError) as error:
            message = f"bulkhead.host is started by the coordinator, which sets its environment ({error})"
            raise Refused(message) from None
        self._zmq = zmq.Context()
        self._control = Link(self._zmq, endpoint, self._hello(), None)
        self._data: Optional[Link] = None
        self._runner: Optional[Runner] = None
        self._gpu: Optional[Gpu] = None  # where the run file says `device: cuda`
        self._calls: Deque[dict] = deque()  # to be run; one, but for those that came while a hook waited for an answer
        self._then: Optional[Callable[[], None]] = None  # what has aborted the call under way
        self._poller = zmq.Poller()
        self._watched: Dict[Link, Tuple[Tuple[Any, int], ...]] = {}  # what the poller watches for a link
        self._spin = 0.0  # seconds to look for messages before it sleeps
        self._hot_turns = 0  # since the control connection was looked at
        self._parent = os.getppid()
        self._next_beat = time.monotonic() + HEARTBEAT_SECONDS
        self._linger_ms = 0

    @property
    def data_socket(self) -> Optional[Union[zmq.Socket, RingSocket]]:
        """For tests only: the worker's end of it reads whatever is written here."""
        return self._data.socket if self._data is not None else None

    @property
    def control_socket(self) -> zmq.Socket:
        """For tests only."""
        return self._control.socket

    def run(self) -> int:
        """Serves until told to stop; the exit status.  Refused and Malformed are for main() to say."""
        try:
            while True:
                self._turn()
        except Stopped as stopped:
            return stopped.status
        finally:
            self._close()

    # ----- The loop -----

    def _turn(self) -> None:
        for link in self._ready():
            received = self._receive_from(link) if link in (self._control, self._data) else None  # an attach closes one
            if received is None:
                continue
            kind, fields = received
            if link is self._control:
                self._on_control(kind, fields)
            else:
                self._on_data(kind, fields)
        if self._calls:
            self._run(self._calls.popleft())

    def _receive_from(self, link: Link) -> Optional[Tuple[str, dict]]:
        try:
            return link.receive()
        except PeerGone as gone:
            if link is self._control:
                raise Stopped(0, str(gone)) from None
            self._drop_data()  # the worker has died; the coordinator will say where the next one is
            return None

    def _ready(self, in_call: bool = False) -> Sequence[Link]:
        """Waits for messages or the next heartbeat, but not where a call could be run; who has something to say."""
        now = time.monotonic()
        if now >= self._next_beat:
            self._beat(now)
        data = self._data
        if data is not None and data.is_hot and self._hot_turns < _HOT_TURNS:
            self._hot_turns += 1
            return [data]
        self._hot_turns = 0
        links = [link for link in (self._control, data) if link is not None]
        for link in links:
            link.advance(now)
            self._watch(link)
        could_run = self._calls or (data is not None and data.is_hot)
        patience = 0.0 if could_run and not in_call else max(0.0, self._next_beat - now)
        if data is not None and self._spin > 0 and patience > 0:
            data.look_for(min(patience, self._spin))
            patience = 0.0 if data.is_hot else patience
        ready = dict(self._poller.poll(patience * 1000))
        return [link for link in links if link.is_hot or any(source in ready for source, _ in self._watched[link])]

    def _watch(self, link: Link) -> None:
        watched, before = link.watched, self._watched.get(link, ())
        if watched == before:
            return
        for source, _ in before:
            self._poller.unregister(source)
        link.close_retired()
        for source, flags in watched:
            self._poller.register(source, flags)
        self._watched[link] = watched

    def _run(self, call: dict) -> None:
        self._mark.begin(call["seq"])
        self._runner.memory = self._data.memory
        try:
            self._runner.run(call)
        except CallAborted:
            pass
        then, self._then = self._then, None
        if then is not None:
            then()

    # ----- Inside a call -----

    def _receive(self, seq: int, number: int) -> dict:
        """The answer to this question.  CallAborted when something ends the call instead, which is done after it."""
        while self._then is None:
            try:
                for link in self._ready(in_call=True):
                    answer = self._hear(link, seq, number)
                    if answer is not None:
                        return answer
            except (Stopped, Malformed, Refused) as error:  # not for the plugin's own `except`
                self._then = _raiser(error)
        raise CallAborted("the call is over")

    def _hear(self, link: Link, seq: int, number: int) -> Optional[dict]:
        """One message while a hook waits: its answer, or None.  Later calls wait in line."""
        received = None
        if self._then is None:
            try:
                received = link.receive()
            except PeerGone:
                self._then = self._drop_data if link is self._data else _raiser(Stopped(0, "the coordinator has gone"))
        if received is None:
            return None
        kind, fields = received
        if link is self._control:
            if kind in ("stop", "attach"):
                self._then = lambda: self._on_control(kind, fields)
        elif kind == "answer" and (fields["seq"], fields["number"]) == (seq, number):
            return fields
        else:
            self._on_data(kind, fields)
        return None

    # ----- The worker -----

    def _on_data(self, kind: str, fields: dict) -> None:
        if kind == "call":
            self._calls.append(fields)
        elif kind == "memory_news" and self._data.memory is not None:
            unused = [(place["segment"], place["offset"]) for place in fields["unused"]]
            self._data.memory.news(unused, fields["gone"])

    # ----- The coordinator -----

    def _on_control(self, kind: str, fields: dict) -> None:
        if kind == "stop":
            raise Stopped(0, fields["reason"])
        if kind == "load" and self._runner is None:
            self._load(fields["config"], fields["facts"])
        elif kind == "configure" and self._runner is not None:
            self._to_coordinator(self._runner.configure(fields["config"]))
        elif kind == "attach" and self._runner is not None:
            self._drop_data()
            self._mark = CallMark(fields["endpoint"])
            hello = {**self._hello(), "capabilities": capabilities(self._gpu)}
            self._data = Link(self._zmq, fields["endpoint"], hello, fields["worker_generation"])

    def _beat(self, now: float) -> None:
        self._next_beat = now + HEARTBEAT_SECONDS
        if os.getppid() != self._parent:
            raise Stopped(0, "the parent has gone")
        if self._control.is_open:
            self._to_coordinator(messages.heartbeat(self._generation))

    # ----- Loading -----

    def _load(self, config: dict, facts: dict) -> None:
        known = Facts(self._generation, **facts)
        context_module.set_facts(known)
        try:
            if config["device"] == "cuda":
                self._gpu = _gpu_of(config, known)
            cls = loader.find_class(config, again=self._generation > 1)
            seeds = GlobalSeeds() if cls.seeded else None
            if seeds is not None:
                seeds.seed(call_key(known.run_seed, known.plugin, known.rank, "__init__", 0, 0))
            loaded = loader.construct(cls, config, known.scope)
        except loader.Refusal as refusal:
            self._to_coordinator(
                messages.load_failed(self._generation, refusal.stage, refusal.key, refusal.failure)
            )
            print(f"{refusal}\n{refusal.failure['traceback']}".rstrip(), file=sys.stderr)
            self._linger_ms = _FLUSH_MS
            raise Stopped(2, str(refusal)) from None
        self._spin = min(max(config["spin_us"], 0), _MAX_SPIN_US) * 1e-6
        self._runner = Runner(loaded, known, seeds, self._to_worker, self._receive, self._gpu)
        self._to_coordinator(messages.loaded(self._generation, loaded.traits))

    # ----- Sending -----

    def _hello(self) -> dict:
        return messages.hello(self._generation, self._rank, self._plugin_index, os.getpid(), self._secret)

    def _to_coordinator(self, envelope: dict) -> None:
        try:
            self._control.send(envelope)
        except PeerGone as gone:
            raise Stopped(0, str(gone)) from None

    def _to_worker(self, envelope: dict, payloads: Sequence[Any]) -> None:
        if self._data is None or self._then is not None:  # nobody waits for what an aborted call says
            return
        try:
            self._data.send(envelope, payloads)
        except PeerGone:  # the worker has died; the coordinator will say where the next one is
            self._drop_data()

    def _drop_data(self) -> None:
        if self._data is not None:
            for source, _ in self._watched.pop(self._data, ()):
                self._poller.unregister(source)
            self._data.close()
            self._data = None
            self._calls.clear()
            self._mark.close()
            if self._gpu is not None:
                self._gpu.forget()

    def _close(self) -> None:
        self._drop_data()
        self._control.close(self._linger_ms)
        self._zmq.term()


def _gpu_of(config: dict, facts: Facts) -> Gpu:
    """The rank's; loader.Refusal where it cannot be used."""
    try:
        return open_gpu(facts.device)
    except NoGpu as error:
        message = f"{config['name']} has device: cuda, but {error}"
        raise loader.Refusal("import", "device", message) from None


def _raiser(error: Exception) -> Callable[[], None]:
    def throw() -> None:
        raise error

    return throw


def _open_streams() -> None:
    """What a plugin prints is in the log when it dies in the next line, and no text can fail to be printed."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")


def _empty_streams() -> None:
    """What cannot be written any more (a full disk) shall not change the exit status."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def main() -> int:
    """Runs the host of this process; returns the exit status."""
    global _current
    faulthandler.enable()
    _open_streams()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the coordinator's to handle: it stops us in order
    try:
        _current = Host(os.environ)
        return _current.run()
    except Refused as refused:
        print(f"bulkhead host: {refused}", file=sys.stderr)
        return 2
    except GpuLost as lost:
        print(f"bulkhead host: {lost}; this process cannot go on", file=sys.stderr)
        return 1
    except Malformed as malformed:
        print(f"bulkhead host: a message breaks the protocol: {malformed}", file=sys.stderr)
        return 1
    finally:
        _empty_streams()


if __name__ == "__main__":
    # A plugin that asks for bulkhead.host must find this very host, not a second copy of its module.
    from bulkhead.host import main as run_host

    sys.exit(run_host())
