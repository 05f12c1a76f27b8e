"""``bulkhead plugin replay FILE``: gives a dead letter to its plugin again, alone in a process, and says what came of it.

The plugin is constructed and set up as in the run, without the state that it had there; then the call is made with the
batch, the facts and the seeds that it had.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from typing import Any, List, NoReturn, Optional, Sequence

from bulkhead.batch import Batch
from bulkhead.check import letter as letters
from bulkhead.check.letter import BadLetter, Letter
from bulkhead.check.process import Died, Garbage, HostProcess, Hung, python_command
from bulkhead.check.session import NotLoaded, Session

ANSWERED, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130
_SHOWN = 20  # lines that the plugin printed last


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Exit status 0 it answered, 1 it failed again, 2 refused."""
    signal.signal(signal.SIGTERM, _interrupted)  # so that the host is ended first
    options = _parser().parse_args(arguments)
    try:
        letter = letters.read(options.file)
        command, environment = _host_of(letter, options)
        return replay(letter, command, environment, options.deadline)
    except (BadLetter, NotLoaded) as refused:
        return _refuse(str(refused))
    except OSError as error:
        return _refuse(f"the host cannot be started: {error}")
    except KeyboardInterrupt:
        return INTERRUPTED


def replay(letter: Letter, command: Sequence[str], environment: dict, deadline: float) -> int:
    """Makes the call and prints what came of it."""
    print(f'{letter.config["use"]}: {letter.hook} of step {letter.context["global_step"]}, rank {letter.seed_rank}')
    print(f"  kept because   {letter.reason}")
    print(f"  with           {letter.batch!r}")
    with tempfile.TemporaryDirectory(prefix="bulkhead-replay-") as run_dir:
        facts = {**letter.facts, "run_dir": run_dir}
        with HostProcess(command, environment, run_dir) as process:
            session = Session(process, letter.config, facts, deadline, letter.seed_rank)
            stage, started = "its start", time.monotonic()
            try:
                session.open()
                stage = "setup"
                session.call("setup", {**letter.context, "micro_batch": 0}, opening=True)
                stage, started = letter.hook, time.monotonic()
                reply, pieces = session.call(letter.hook, letter.context, letter.batch)
                said, status = _answer(reply, pieces), ANSWERED if reply["failure"] is None else FAILED
            except Died as died:
                said, status = [f"it died in {stage}: {died}"], FAILED
            except Hung:
                said, status = [f"no answer to {stage} within {deadline:g} s"], FAILED
            except Garbage as garbage:
                said, status = [f"garbage in {stage}: {garbage}"], FAILED
            seconds = time.monotonic() - started
        printed = bytes(process.printed).decode(errors="replace").rstrip().splitlines()[-_SHOWN:]
    print(f"  now            {said[0]} ({1e3 * seconds:.1f} ms)")
    for line in said[1:]:
        print(f"    {line}")
    for line in printed if status == FAILED else ():
        print(f"  printed        {line}")
    return status


def _answer(reply: dict, pieces: List[bytes]) -> List[str]:
    failure = reply["failure"]
    if failure is not None:
        lines = str(failure.get("traceback", "")).rstrip().splitlines()
        return [f"it raised {failure.get('type')}: {failure.get('message')}", *lines]
    changed = Batch()
    for tensor, data in zip(reply["batch"], pieces):
        changed.update(Batch([(tensor["name"], tensor["dtype"], tuple(tensor["shape"]), data)]))
    kept = f", kept {', '.join(reply['kept'])}" if reply["kept"] else ""
    return [f"it answered: {changed!r}{kept}"]


def _host_of(letter: Letter, options: argparse.Namespace) -> Any:
    """(command line, environment) of its host."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("BULKHEAD_")}
    if letter.config["language"] == "cpp":
        if not options.native_host or not os.access(options.native_host, os.X_OK):
            raise BadLetter("a native plugin needs --native-host PATH, the bulkhead-plugin-host that was built")
        return [os.path.abspath(options.native_host)], environment
    command, root = python_command()
    environment["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [environment.get("PYTHONPATH")])])
    return [letter.config["python"] or command[0], *command[1:]], environment


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bulkhead plugin replay",
        description="Gives a batch that a plugin could not take (RUN/dead_letters) to it again, and says what came of it.",
        epilog="Exit status: 0 it answered, 1 it failed again, 2 refused.",
    )
    parser.add_argument("file", metavar="FILE", help="NAME.json or NAME.safetensors in a run's dead_letters")
    parser.add_argument("--deadline", type=float, default=30.0, metavar="SECONDS", help="for the call (default 30)")
    parser.add_argument("--native-host", metavar="PATH", default="", help="the host of native plugins")
    return parser


def _refuse(sentence: str) -> int:
    print(f"bulkhead plugin replay: {sentence}", file=sys.stderr)
    return REFUSED


def _interrupted(*_: Any) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
