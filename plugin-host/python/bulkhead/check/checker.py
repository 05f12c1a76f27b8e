"""Runs the stream of calls against a plugin and fills the report.

A hook in which the host dies, hangs or talks nonsense is reported and not called again; the others go on in a new
incarnation, which gets the last state.  One thread.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Sequence, Set

from bulkhead.check import inputs, outputs
from bulkhead.check.process import Died, Garbage, HostProcess, Hung
from bulkhead.check.report import Report
from bulkhead.check.session import Session, facts_of
from bulkhead.check.stream import STEPS_IN_EPOCH, Place, resumed, training
from bulkhead.hooks import COLLATE, HOOKS, ROWS, SAMPLE, STATE, TRANSFORM

_STOP_SECONDS = 5.0
_MUCH = 1 << 20  # printed bytes worth a note
_SHOWN = 16  # printed lines
_TRACEBACKS = ("Fatal Python error", "Traceback (most recent call last)")


@dataclass(frozen=True)
class Subject:
    """What is checked, and how."""

    command: Sequence[str]  # of its host
    environment: Mapping[str, str]
    config: dict  # as in the run file, resolved
    scope: str
    data: str  # of batches; empty: what suits its hooks
    steps: int
    deadline: float  # seconds for a call


class Checker:
    """check() once."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._report = Report()
        self._state = b""
        self._broken: Set[str] = set()
        self._last: Dict[str, outputs.Schema] = {}
        self._traits: dict = {}
        self._calls = 0

    def check(self) -> Report:
        """NotLoaded when the host does not want the plugin; OSError when the host cannot be started."""
        run_dir = tempfile.mkdtemp(prefix="bulkhead-check-run-")
        try:
            steps = self._subject.steps
            if self._incarnations(run_dir, list(training(steps))):
                self._incarnations(run_dir, list(resumed(steps)))
        finally:
            shutil.rmtree(run_dir, ignore_errors=True)
        return self._report

    @property
    def traits(self) -> dict:
        """Of the plugin, once check() has loaded it."""
        return self._traits

    # ----- Incarnations -----

    def _incarnations(self, run_dir: str, places: List[Place]) -> bool:
        """Makes all these calls, in a new incarnation wherever one has ended; False when none can be opened."""
        while True:
            with self._host(run_dir) as process:
                session = Session(process, self._subject.config, facts_of(self._subject.scope, run_dir),
                                  self._subject.deadline)  # fmt: skip
                ready = self._open(session)
                done = ready and self._run(session, places)
                if done:
                    self._stop(process)
            self._listen(process)
            if done or not ready:
                return ready

    def _host(self, run_dir: str) -> HostProcess:
        subject = self._subject
        return HostProcess(subject.command, subject.environment, run_dir)

    def _open(self, session: Session) -> bool:
        """Greeting, constructor, setup, state; False when there is no use in going on."""
        try:
            session.open()
        except (Died, Hung, Garbage) as error:
            self._report.problem("", f"loading it: {self._said(error)}", self._printed(session))
            return False
        self._traits = session.traits
        self._report.expect(session.traits["hooks"])
        if session.configured is not None and not self._configured(session.configured):
            return False
        opening = [("setup", b""), ("load_state_dict", self._state)] if self._state else [("setup", b"")]
        for hook, state in opening:
            if not self._one(session, Place(hook, 0), state, opening=True):
                return False
        if self._report.hooks.get("setup") and "raised" in "".join(self._report.hooks["setup"].results):
            return False  # which refuses the run
        return self._state != b"" or self._one(session, Place("state_dict", 0), opening=True)

    def _configured(self, answer: dict) -> bool:
        failure = answer["failure"]
        if failure is None:
            changes = ", ".join(answer["changes"]) or "nothing"
            self._report.called("configure", f"changes {changes}")
            return True
        self._report.called("configure", f"raised {failure['type']}")
        self._raised("configure", failure)
        return False

    def _stop(self, process: HostProcess) -> None:
        with contextlib.suppress(Garbage):
            try:
                process.stop(_STOP_SECONDS)
            except Died as died:
                self._report.problem("", f"at its end {died}")
            except Hung:
                self._report.problem("", f"it does not end within {_STOP_SECONDS:g} s of being told to stop")

    # ----- Calls -----

    def _run(self, session: Session, places: List[Place]) -> bool:
        """Makes the calls and takes each off the list; False when the incarnation has ended on the way."""
        while places:
            place = places.pop(0)
            called = place.hook in session.traits["hooks"] or place.hook == "state_dict"
            if called and place.hook not in self._broken and not self._one(session, place):
                return False
        return True

    def _one(self, session: Session, place: Place, state: bytes = b"", opening: bool = False) -> bool:
        """One call; False when the host did not live through it."""
        hook = place.hook
        if opening and hook in self._broken:
            return True
        arrays = self._arrays(place)
        context = inputs.context(hook, place.step, self._subject.steps + 1, STEPS_IN_EPOCH, place.micro)
        try:
            reply, data = session.call(hook, context, arrays, state, opening)
        except (Died, Hung, Garbage) as error:
            self._broken.add(hook)
            self._report.called(hook, "ended" if isinstance(error, Died) else type(error).__name__.lower())
            where = f"call {self._report.hooks[hook].calls}, step {place.step}"
            self._report.problem(hook, f"{self._said(error)} ({where}); it is not called again", self._printed(session))
            return False
        self._take(reply, data, arrays, own=hook in session.traits["hooks"])
        return True

    def _arrays(self, place: Place) -> Any:
        kind = HOOKS[place.hook]
        if kind == SAMPLE:
            return inputs.sample_batch(place.step * 2 + place.micro)
        if kind == ROWS:
            return inputs.row_batch(place.micro)
        if kind == COLLATE:
            return inputs.token_batch(place.step * 2 + place.micro)
        if kind == TRANSFORM:
            kinds = {HOOKS[hook] for hook in self._traits["hooks"]}
            fitting = "captions" if SAMPLE in kinds else "rows" if kinds & {ROWS, COLLATE} else "text"
            data = self._subject.data or fitting
            return inputs.batch(data, place.step * 2 + place.micro)
        return None

    def _take(self, reply: dict, data: List[bytes], arrays: Any, own: bool) -> None:
        """`own`: the plugin overrides this hook; its base class's is not worth a row."""
        hook, failure = reply["hook"], reply["failure"]
        if failure is not None:
            self._report.called(hook, f"raised {failure['type']}", reply["seconds"])
            self._raised(hook, failure)
            return
        if own or reply["has_state"]:
            self._report.called(hook, outputs.result_of(reply), reply["seconds"])
        given = outputs.schema_of(arrays) if arrays is not None else {}
        last = self._last.get(hook, {})
        wrong = outputs.problems_of(reply, data, given, last, outputs.schema_of(inputs.weights()))
        for sentence in wrong:
            self._report.problem(hook, sentence)
        if HOOKS[hook] == TRANSFORM and not wrong:
            self._last[hook] = outputs.output_schema(reply, given)
        if HOOKS[hook] != STATE:
            for name in outputs.not_finite(reply, data):
                self._report.note(f'{hook} gives "{name}" with NaN or Inf in it; `check_finite: true` would refuse it')
        elif reply["has_state"]:
            self._state = data[-1]

    # ----- Words -----

    def _raised(self, hook: str, failure: dict) -> None:
        refuses = " (which refuses the run)" if hook in ("setup", "configure") else ""
        self._report.problem(hook, f"raised {failure['type']}: {failure['message']}{refuses}", failure["traceback"])

    def _said(self, error: Exception) -> str:
        if isinstance(error, Hung):
            return f"nothing came within the deadline of {self._subject.deadline:g} s"
        return str(error) if isinstance(error, Died) else f"it talks garbage: {error}"

    def _printed(self, session: Session) -> str:
        """The last traceback, else the last lines: they often say why."""
        lines = _lines(session.printed())
        heads = [at for at, line in enumerate(lines) if line.startswith(_TRACEBACKS)]
        return "\n".join(lines[heads[-1] :][:_SHOWN] if heads else lines[-_SHOWN:])

    def _listen(self, process: HostProcess) -> None:
        """After an incarnation: what it printed that a person should know."""
        if process.printed_bytes > _MUCH:
            self._report.note(f"it printed {process.printed_bytes >> 20} MiB, which a run keeps in its logs")
        for line in _lines(bytes(process.printed)):
            if line.startswith("warning: "):
                self._report.note(line[len("warning: ") :])


def _lines(printed: bytes) -> List[str]:
    return printed.decode("utf-8", "replace").splitlines()
