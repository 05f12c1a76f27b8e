"""Ends the run in order, with a checkpoint on all ranks, when a file appears or one host gets a signal.

    plugins:
      - use: graceful_exit
        with: {file: stop, signals: [SIGUSR1]}

`echo "making room" > RUN_DIR/stop` on any node ends training at the end of the step that is under way; the file's text
is the reason in summary.json.  The signal, sent to any of this plugin's processes (their ids are in events.jsonl),
makes that file.  One rank is enough: what one asks for, all do at the same step.  (SIGTERM to a rank or to the
coordinator needs no plugin.)  The file is removed when the last checkpoint is complete.
"""

import os
import signal
from typing import List

from bulkhead import Plugin


class GracefulExit(Plugin):
    def __init__(self, file: str = "stop", signals: List[str] = ("SIGUSR1",)):
        """file: looked for before each step; relative to the run's directory, or absolute.

        signals: names of signals that a host takes as the request, e.g. SIGUSR1, SIGUSR2, SIGHUP; may be empty.
        """
        for name in signals:
            if not (name.startswith("SIG") and isinstance(getattr(signal, name, None), signal.Signals)):
                known = ", ".join(item.name for item in signal.Signals)
                raise ValueError(f'signals: there is no "{name}"; there are {known}')
            if name in ("SIGKILL", "SIGSTOP"):
                raise ValueError(f"signals: {name} cannot be caught")
            if name in ("SIGINT", "SIGTERM"):
                raise ValueError(f"signals: by {name} the coordinator ends this process; take another")
        if not file:
            raise ValueError("file must be a path, not empty")
        self.file, self.signals = file, list(signals)
        self.ending = False

    def setup(self, ctx):
        path = self._path(ctx)

        def request(number, frame):
            # A file, not an attribute: it outlives this process, and is still there when its call is made again.
            with open(path, "a") as file:
                file.write(f"{signal.Signals(number).name} to process {os.getpid()}\n")

        for name in self.signals:
            signal.signal(getattr(signal, name), request)

    def on_step_start(self, ctx):
        # Asked for here, not in on_step_end, it is done at the end of this very step.
        if os.path.exists(self._path(ctx)):
            ctx.control.save()
            ctx.control.stop(self._reason(ctx))

    def on_train_end(self, ctx):
        self.ending = True

    def on_save_end(self, ctx):
        if self.ending and not ctx.replaying:
            try:
                os.remove(self._path(ctx))
            except OSError:  # never there, or another rank was first
                pass

    def _path(self, ctx):
        return os.path.join(ctx.run_dir, self.file)

    def _reason(self, ctx):
        try:
            with open(self._path(ctx), errors="replace") as request:
                text = " ".join(request.read(1024).split())
        except OSError:  # removed meanwhile, or a folder: the request stands
            text = ""
        return text or f"{self._path(ctx)} is there"
