"""Writes training, validation and test numbers for TensorBoard.

    plugins:
      - use: tensorboard
        scope: job
        python: /opt/venvs/tensorboard/bin/python    # pip install tensorboard pyzmq msgpack numpy
        with: {folder: tensorboard, every: 1}

`tensorboard --logdir RUNS` shows train/loss, train/lr, train/grad_norm, validation/loss, test/loss, …, over the steps
completed.  It only watches (`steers = False`): no step ever waits for it, and a slow disk loses it events, not time.
After a resume what lies behind the checkpoint is hidden from TensorBoard, as it will be trained again.
"""

import os
import time

from bulkhead import Plugin

try:  # the package; this file has its name but comes last in the search path
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter
except ImportError:
    raise ImportError(
        "the tensorboard package is not in this plugin's environment; pip install tensorboard pyzmq msgpack numpy into "
        "one, and name its interpreter in the run file (python: DIR/bin/python)"
    ) from None


class TensorBoard(Plugin):
    steers = False
    stateless = True

    def __init__(self, folder: str = "tensorboard", every: int = 1, flush_seconds: float = 10.0):
        """folder: for the event files, relative to the run's directory or absolute.

        every: steps between points of the train curves, ≥ 1; the first step always has one.
        flush_seconds: at the latest after so long a point is on disk, > 0.
        """
        if every < 1:
            raise ValueError(f"every must be at least 1, not {every}")
        if not flush_seconds > 0:
            raise ValueError(f"flush_seconds must be greater than 0, not {flush_seconds}")
        self.folder, self.every, self.flush_seconds = folder, every, flush_seconds
        self.writer = None

    def setup(self, ctx):
        if ctx.is_main:
            folder = os.path.join(ctx.run_dir, self.folder)
            self.writer = EventFileWriter(folder, flush_secs=self.flush_seconds)

    def on_load(self, ctx):
        if self.writer is not None:  # TensorBoard drops older events from this step on
            start = SessionLog(status=SessionLog.START)
            self._add(Event(wall_time=time.time(), step=ctx.global_step + 1, session_log=start))

    def on_step_end(self, ctx):
        step = ctx.global_step + 1
        if step == 1 or step % self.every == 0:
            self._write("train", {**ctx.metrics, "lr": ctx.lr, "grad_norm": ctx.grad_norm}, step)

    def on_validate_end(self, ctx):
        self._write("validation", ctx.metrics, ctx.global_step)
        self._flush()

    def on_test_end(self, ctx):
        self._write("test", ctx.metrics, ctx.global_step)
        self._flush()

    def on_train_end(self, ctx):
        self._flush()

    def on_exception(self, ctx):
        self._flush()

    def _write(self, group, numbers, step):
        values = [Summary.Value(tag=f"{group}/{name}", simple_value=value) for name, value in numbers.items()]
        self._add(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def _add(self, event):
        if self.writer is not None:
            self.writer.add_event(event)

    def _flush(self):
        if self.writer is not None:
            self.writer.flush()
