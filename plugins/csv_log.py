"""One line of numbers per step in a CSV file: step (completed ones), epoch, loss, lr, grad_norm, other metrics.

    plugins:
      - use: csv_log
        scope: job
        with: {path: metrics.csv, every: 1}

The file is the only state: what is in it is not written again, so that a crash, a replay or a repeated call leaves
one line for each step, and a resume cuts it back to the checkpoint.
"""

import csv
import io
import os

from bulkhead import Plugin


class CsvLog(Plugin):
    stateless = True  # nothing to replay: the file says where we are

    def __init__(self, path: str = "metrics.csv", every: int = 1):
        """path: relative to the run's directory.  every: steps between lines, ≥ 1; the first step always has one."""
        if every < 1:
            raise ValueError(f"every must be at least 1, not {every}")
        self.path, self.every = path, every

    def setup(self, ctx):
        self.path = os.path.join(ctx.run_dir, self.path)
        if ctx.is_main:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            self._read()

    def on_train_start(self, ctx):
        if ctx.is_main and not ctx.replaying:
            self._cut_to(0)  # left by ranks that died before their first checkpoint

    def on_load(self, ctx):
        if ctx.is_main and not ctx.replaying:
            self._cut_to(ctx.global_step)

    def on_step_end(self, ctx):
        step = ctx.global_step + 1
        if not ctx.is_main or step <= self.last or not (step == 1 or step % self.every == 0):
            return
        row = {"step": step, "epoch": ctx.epoch, **ctx.metrics, "lr": ctx.lr, "grad_norm": ctx.grad_norm}
        if not self.columns:
            first = ["step", "epoch", "loss", "lr", "grad_norm"]
            self.columns = first + sorted(set(row) - set(first))
            self._append(self.columns)
        self._append([row.get(name, "") for name in self.columns])
        self.last = step

    def _append(self, cells):
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(cells)
        # One write, so that a crash leaves a whole line or none.
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(file, line.getvalue().encode())
        finally:
            os.close(file)

    def _cut_to(self, step):
        """Keeps the lines up to `step` steps completed."""
        self._read(step)
        if os.path.exists(self.path):
            os.truncate(self.path, self.end)

    def _read(self, up_to=float("inf")):
        """columns, last step and end (in bytes) of the lines up to a step; a last line without its end is cut off."""
        self.columns, self.last, self.end = [], 0, 0
        if not os.path.exists(self.path):
            return
        with open(self.path, "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    os.truncate(self.path, self.end)
                    return
                cells = next(csv.reader([line.decode()]))
                if self.columns:
                    if int(cells[0]) > up_to:
                        return
                    self.last = int(cells[0])
                else:
                    self.columns = cells
                self.end += len(line)
